// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"time"
)

const (
	amrMark  = "#!AMR"
	amrFrame = 20 * time.Millisecond
	// amrPadding are the bits of a frame's first byte that are 0.
	amrPadding = 0x83
	// amrChain is how many frames must follow on each other for the first one behind something else to be believed.
	amrChain = 4
	// amrLongest is the size of the longest frame, with its first byte.
	amrLongest = 61
)

// The sizes of frames by their type, without the first byte; -1 are those that there are none of.
var (
	amrNarrow = [16]int{12, 13, 15, 17, 19, 20, 26, 31, 5, 6, 5, 5, -1, -1, -1, 0}
	amrWide   = [16]int{17, 23, 32, 36, 40, 46, 50, 58, 60, 5, -1, -1, -1, -1, 0, 0}
)

// amrHeaders are the beginnings of files; those with several channels say how many in four bytes more.
var amrHeaders = []struct {
	mark  string
	sizes *[16]int
	many  bool
}{
	{amrMark + "\n", &amrNarrow, false},
	{amrMark + "-WB\n", &amrWide, false},
	{amrMark + "_MC1.0\n", &amrNarrow, true},
	{amrMark + "-WB_MC1.0\n", &amrWide, true},
}

// amrDuration counts the frames, each of 20 ms.
func amrDuration(r *io.SectionReader) (time.Duration, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	head, err := in.Peek(20)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	for _, h := range amrHeaders {
		if !bytes.HasPrefix(head, []byte(h.mark)) {
			continue
		}
		skip, channels := len(h.mark), int64(1)
		if h.many {
			if len(head) < skip+4 {
				return 0, io.ErrUnexpectedEOF
			}
			channels = int64(head[skip+3] & 15)
			skip += 4
		}
		if _, err := in.Discard(skip); err != nil {
			return 0, err
		}
		n, err := amrFrames(in, h.sizes)
		return time.Duration(n/max(channels, 1)) * amrFrame, err
	}
	return 0, damaged("it is of no version that is known")
}

func amrFrames(in *bufio.Reader, sizes *[16]int) (n int64, err error) {
	for synced := true; ; {
		b, err := in.Peek(amrLongest * amrChain)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if len(b) == 0 {
			return n, nil
		}
		chain := 1
		if !synced {
			chain = amrChain
		}
		size := amrSize(b, sizes, chain)
		if synced = size > 0; !synced {
			size = 1
		} else if size > len(b) { // The last frame was cut off.
			return n, nil
		} else {
			n++
		}
		if _, err := in.Discard(size); err != nil {
			return 0, err
		}
	}
}

// amrSize returns the size of the frame that b begins with if it and what follows, as far as b reaches, are so many
// frames; else 0.
func amrSize(b []byte, sizes *[16]int, chain int) (first int) {
	for at := 0; chain > 0 && at < len(b); chain-- {
		size := 1 + sizes[b[at]>>3&15]
		if size == 0 || b[at]&amrPadding != 0 {
			return 0
		}
		if at += size; first == 0 {
			first = size
		}
	}
	return first
}
