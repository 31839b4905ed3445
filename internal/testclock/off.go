// SPDX-License-Identifier: Apache-2.0

//go:build !testclock

// Package testclock lets a demo move the time of the programs. Programs that are built without the tag testclock, as
// every image is, have nothing in them that could.
package testclock

import "time"

// Now returns nil: the database's clock decides.
func Now() func() time.Time { return nil }
