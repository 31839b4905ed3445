// SPDX-License-Identifier: Apache-2.0

package postgres

import "unsafe"

// IDs gives a list of ids another type: that of the columns, which is [16]byte, or one of the domain's. It is the same
// list, not a copy: batches have several of them. Single ids need no conversion.
func IDs[To, From ~[16]byte](ids []From) []To {
	//nolint:gosec // both are arrays of 16 bytes, so the one list can be read as the other
	return unsafe.Slice((*To)(unsafe.Pointer(unsafe.SliceData(ids))), len(ids))
}
