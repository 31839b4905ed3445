// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"bytes"
	"io"
	"time"
)

const (
	frameHeader = 7
	// maxFrame is above the longest frame.
	maxFrame = 8 << 10
	// nextFrames is how many further frames must follow for a header that was searched for to be believed.
	nextFrames = 2
	// firstFrames is that for a file that nothing else tells the kind of, and searched how far into it they are looked
	// for.
	firstFrames = 4
	searched    = 1 << 20
)

// frame is what the header of a frame says, of those formats that are nothing but one frame after another.
type frame struct {
	// alike is what all frames of a stream share.
	alike   uint32
	size    int
	samples uint32
	rate    uint32
	// info is where a description of the file stands if the frame holds one instead of audio, or 0.
	info int
}

// parser reads the header of a frame, at least frameHeader bytes.
type parser func(b []byte) (frame, bool)

// chain reports whether b begins with a frame that so many others like it follow, as far as b reaches, and how many do.
func (parse parser) chain(b []byte, next int) (follow int, ok bool) {
	var first frame
	for at := 0; at+frameHeader <= len(b); follow++ {
		f, ok := parse(b[at:])
		if first.size == 0 {
			first = f
		}
		if !ok || f.alike != first.alike {
			return follow, false
		}
		if at += f.size; follow == next || at > len(b) {
			return follow, follow > 0
		}
	}
	return follow - 1, follow > 0
}

// find returns where the frames of a file begin of which b is the beginning, or -1.
func (parse parser) find(b []byte) int {
	for at := 0; ; at++ {
		n := bytes.IndexByte(b[at:], 0xff) // every header begins with it
		if n < 0 {
			return -1
		}
		at += n
		if follow, ok := parse.chain(b[at:], firstFrames); ok && (at == 0 || follow > 0) {
			return at
		}
	}
}

// tally counts samples by their rate.
type tally map[uint32]uint64

func (t tally) duration() (total time.Duration, err error) {
	for rate, n := range t {
		d, err := length(n, uint64(rate))
		if err != nil {
			return 0, err
		}
		if total, err = add(total, d); err != nil {
			return 0, err
		}
	}
	return total, nil
}

// frames counts the frames of a stream that is written to it. It begins where the stream does, and goes on behind what
// is damaged or is something else.
type frames struct {
	parse  parser
	buf    []byte
	synced bool

	count int
	total tally
	gap   gap
}

func newFrames(parse parser) *frames { return &frames{parse: parse, total: tally{}} }

// Write takes the next part of the stream.
func (s *frames) Write(p []byte) (int, error) {
	s.buf = append(s.buf, p...)
	s.advance(maxFrame * (nextFrames + 1))
	return len(p), nil
}

// advance counts while that much of the stream is known.
func (s *frames) advance(known int) {
	b := s.buf
	for len(b) >= max(known, frameHeader) {
		f, ok := s.parse(b)
		if ok && !s.synced {
			_, ok = s.parse.chain(b, nextFrames)
		}
		s.synced = ok
		n := f.size
		switch {
		case !s.synced:
			if n = bytes.IndexByte(b[1:], 0xff) + 1; n == 0 {
				n = len(b)
			}
		case n > len(b): // The last frame was cut off.
			n = len(b)
		default:
			s.add(f, b[:n])
		}
		b = b[n:]
	}
	s.buf = append(s.buf[:0], b...)
}

func (s *frames) add(f frame, b []byte) {
	if s.count == 0 {
		if g, is := describes(b, f); is {
			s.gap = g
			s.count++
			return
		}
	}
	s.count++
	s.total[f.rate] += uint64(f.samples)
}

// end returns the length of the stream.
func (s *frames) end() (time.Duration, error) {
	s.advance(0)
	if n := s.total[s.gap.rate]; n > 0 {
		s.total[s.gap.rate] = n - s.gap.in(n)
	}
	return s.total.duration()
}

// framesDuration counts all frames: only that is exact where the bit rate varies.
func framesDuration(parse parser) func(r *io.SectionReader) (time.Duration, error) {
	return func(r *io.SectionReader) (time.Duration, error) {
		s := newFrames(parse)
		if _, err := io.CopyBuffer(s, struct{ io.Reader }{r}, make([]byte, 64<<10)); err != nil {
			return 0, err
		}
		return s.end()
	}
}
