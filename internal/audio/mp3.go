// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/bits"
	"time"
)

// Read here and not by a library: those that can be had do not know MPEG 2.5, which telephone recordings use, count the
// frame that only describes the file, or guess the length from the first frame's bit rate.

// mpegRates are samples a second of MPEG 1; MPEG 2 has half of it, MPEG 2.5 a quarter.
var mpegRates = [3]uint32{44100, 48000, 32000}

// mpegBitrates are in kbit/s, by column: MPEG 1 layers I, II, III; MPEG 2 and 2.5 layer I; layers II and III.
var mpegBitrates = [5][15]uint32{
	{0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448},
	{0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384},
	{0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320},
	{0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256},
	{0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160},
}

const (
	mpegHeader = 4
	// alike are the bits of a header that all frames of a stream share: sync, version, layer and rate.
	alike = 0xfffe0c00
	// nextFrames is how many further frames must follow for a header that was searched for to be believed.
	nextFrames = 2
)

// mpegFrame is what a frame's header says.
type mpegFrame struct {
	header  uint32
	size    int
	samples uint32
	rate    uint32
	// info is where a description of the file stands if the frame holds one instead of audio.
	info int
}

func parseFrame(b []byte) (f mpegFrame, ok bool) {
	h := big.Uint32(b)
	version, layer := h>>19&3, 4-h>>17&3 // version 3 is MPEG 1, 2 MPEG 2, 0 MPEG 2.5
	bitrate, rate := h>>12&15, h>>10&3
	if h>>21 != 0x7ff || version == 1 || layer == 4 || bitrate == 0 || bitrate == 15 || rate == 3 || h&3 == 2 {
		return f, false
	}
	f = mpegFrame{header: h, samples: 1152, rate: mpegRates[rate]}
	column, padding := layer-1, int(h>>9&1)
	if version != 3 {
		column = min(layer+2, 4)
		if f.rate /= 2; version == 0 {
			f.rate /= 2
		}
	}
	speed := mpegBitrates[column][bitrate] * 1000
	switch {
	case layer == 1:
		f.samples = 384
		f.size = (int(12*speed/f.rate) + padding) * 4
	case layer == 3 && version != 3:
		f.samples = 576
		f.size = int(72*speed/f.rate) + padding
	default:
		f.size = int(144*speed/f.rate) + padding
	}
	mono := h>>6&3 == 3
	switch {
	case version == 3 && !mono:
		f.info = mpegHeader + 32
	case version == 3 || !mono:
		f.info = mpegHeader + 17
	default:
		f.info = mpegHeader + 9
	}
	return f, true
}

// believable reports whether b begins with a frame that others like it follow, as far as b reaches.
func believable(b []byte) bool {
	first, ok := parseFrame(b)
	at := 0
	for f := first; ok; f, ok = parseFrame(b[at:]) {
		if f.header&alike != first.header&alike {
			return false
		}
		if at += f.size; at >= nextFrames*first.size && at > first.size {
			return true
		}
		if at+mpegHeader > len(b) {
			return at > first.size || at == len(b)
		}
	}
	return false
}

func isMP3(head []byte) bool { return len(head) >= mpegHeader && believable(head) }

// maxFrame is above the longest frame.
const maxFrame = 4 << 10

// mp3Counter counts samples by their rate.
type mp3Counter struct {
	samples map[uint32]uint64
	frames  int
	// gap is how many samples the encoder added, at firstRate.
	gap       uint64
	firstRate uint32
}

// mp3Duration counts the samples of all frames: only that is exact where the bit rate varies. What an encoder added at
// the beginning and the end is taken off where it says how much that is.
func mp3Duration(r *io.SectionReader) (time.Duration, error) {
	in := bufio.NewReaderSize(r, 4*maxFrame)
	count := &mp3Counter{samples: map[uint32]uint64{}}
	for synced := false; ; {
		b, err := in.Peek(maxFrame * (nextFrames + 1))
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if len(b) < mpegHeader {
			return count.duration()
		}
		f, ok := parseFrame(b)
		synced = ok && (synced || believable(b))
		n := f.size
		switch {
		case !synced:
			// The next candidate begins with a sync byte.
			if n = bytes.IndexByte(b[1:], 0xff) + 1; n == 0 {
				n = len(b)
			}
		case f.size > len(b): // The last frame was cut off.
			return count.duration()
		default:
			count.add(f, b[:f.size])
		}
		if _, err := in.Discard(n); err != nil {
			return 0, err
		}
	}
}

func (c *mp3Counter) add(f mpegFrame, frame []byte) {
	c.frames++
	if c.frames == 1 {
		c.firstRate = f.rate
		if gap, is := describes(frame, f); is {
			c.gap = gap
			return
		}
	}
	c.samples[f.rate] += uint64(f.samples)
}

func (c *mp3Counter) duration() (total time.Duration, err error) {
	if c.frames > 0 {
		c.samples[c.firstRate] -= min(c.gap, c.samples[c.firstRate])
	}
	for rate, n := range c.samples {
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

// Parts of a Xing frame, and where the encoder's delay and padding stand in what LAME and libavcodec put behind it.
const (
	xingFrames, xingBytes, xingTOC, xingQuality = 1, 2, 4, 8

	tocSize  = 100
	lameGaps = 21
	lameSize = lameGaps + 3
	vbriAt   = mpegHeader + 32
)

// describes reports whether a frame describes the file instead of being a part of it, and how many samples the encoder
// added to the audio.
func describes(frame []byte, f mpegFrame) (gap uint64, is bool) {
	if len(frame) >= vbriAt+4 && string(frame[vbriAt:vbriAt+4]) == "VBRI" {
		return 0, true
	}
	at := f.info
	if len(frame) < at+8 {
		return 0, false
	}
	if mark := string(frame[at : at+4]); mark != "Xing" && mark != "Info" {
		return 0, false
	}
	flags := big.Uint32(frame[at+4:])
	at += 8
	at += 4 * bits.OnesCount32(flags&(xingFrames|xingBytes|xingQuality))
	if flags&xingTOC != 0 {
		at += tocSize
	}
	if len(frame) < at+lameSize {
		return 0, true
	}
	if encoder := string(frame[at : at+4]); encoder != "LAME" && encoder != "Lavf" && encoder != "Lavc" {
		return 0, true
	}
	// Two numbers of 12 bits: samples that were added before and behind.
	g := big.Uint32(frame[at+lameGaps-1:]) & 0xffffff
	return uint64(g>>12) + uint64(g&0xfff), true
}
