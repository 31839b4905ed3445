// SPDX-License-Identifier: Apache-2.0

package testclock

import (
	"os"
	"strings"
	"time"
)

// fromFile returns a clock that is ahead of the machine's by the duration in a file, such as 744h. It is read each
// time, so that writing it moves the time of all programs that share it; a file that is missing or says nothing moves
// nothing.
func fromFile(path string) func() time.Time {
	return func() time.Time {
		now := time.Now()
		text, err := os.ReadFile(path)
		if err != nil {
			return now
		}
		ahead, err := time.ParseDuration(strings.TrimSpace(string(text)))
		if err != nil {
			return now
		}
		return now.Add(ahead)
	}
}
