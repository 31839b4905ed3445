// SPDX-License-Identifier: Apache-2.0

package audio

import "time"

// maxStep is the longest step between two times that is believed to be audio and not a gap.
const maxStep = 5 * time.Second

// clock measures audio whose packets say only when they are to be played. Gaps and jumps are not counted.
type clock struct {
	begun       bool
	last, total time.Duration
	// size is how many bytes have come since the last time, measured how many the total is of.
	size, measured uint64
}

func (c *clock) tick(at time.Duration) {
	if step := at - c.last; c.begun && step > 0 && step <= maxStep {
		c.total += step
		c.measured += c.size
	}
	c.last, c.begun, c.size = at, true, 0
}

// bytes says how much has come since the last time.
func (c *clock) bytes(n int) { c.size += uint64(n) }

// length is the time up to the last packet, and for that one as much as so many bytes took before.
func (c *clock) length() time.Duration {
	if c.measured == 0 {
		return c.total
	}
	return c.total + time.Duration(min(float64(c.total)/float64(c.measured)*float64(c.size), float64(maxStep)))
}
