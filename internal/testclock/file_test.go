// SPDX-License-Identifier: Apache-2.0

package testclock

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestFromFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clock")
	now := fromFile(path)
	for _, tc := range []struct {
		text string
		want time.Duration
	}{{"", 0}, {"744h\n", 744 * time.Hour}, {"tomorrow", 0}, {"-1h", -time.Hour}} {
		if tc.text != "" {
			if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := time.Until(now()); got < tc.want-time.Minute || got > tc.want+time.Minute {
			t.Errorf("%q: the clock is ahead by %s, want %s", tc.text, got, tc.want)
		}
	}
}

// What is not built for it cannot be moved, whatever the environment says.
func TestNothingMovesTheClockOfAnImage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clock")
	if err := os.WriteFile(path, []byte("744h"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("USAGE_TEST_CLOCK", path)
	if Now() != nil {
		t.Error("built without the tag testclock, the clock is moved all the same")
	}
}
