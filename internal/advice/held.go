// SPDX-License-Identifier: Apache-2.0

package advice

import "slices"

// signal is what one look at a rule says: that it holds clearly, that it clearly does not, or neither.
type signal int

const (
	off  signal = -1
	keep signal = 0
	on   signal = 1
)

// between is a signal of a value with two bounds: on from one on, off below the other, which is lower.
func between(enters, leaves bool) signal {
	switch {
	case enters:
		return on
	case leaves:
		return off
	}
	return keep
}

// held reports whether a rule holds after looks at it, the oldest first: the last clear one decides. So it does not
// flip while what it looks at stays between its bounds.
func held(looks []signal) bool {
	for _, look := range slices.Backward(looks) {
		if look != keep {
			return look == on
		}
	}
	return false
}
