// SPDX-License-Identifier: Apache-2.0

//go:build testclock

// Package testclock lets a demo move the time of the programs. Programs that are built without the tag testclock, as
// every image is, have nothing in them that could.
package testclock

import (
	"log/slog"
	"os"
	"time"
)

// Now returns the clock that takes the database's place where the environment's USAGE_TEST_CLOCK names a file, else
// nil.
func Now() func() time.Time {
	path := os.Getenv("USAGE_TEST_CLOCK")
	if path == "" {
		return nil
	}
	slog.Warn("built with the tag testclock: periods and leases go by the file, not by the database's clock",
		"file", path)
	return fromFile(path)
}
