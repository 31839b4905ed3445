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

// Read here and not by a library: those that can be had believe the number of samples in the header, and where there is
// none decode the file, which takes a hundred times as long and fails at the first damage.

const (
	flacMark  = "fLaC"
	flacBlock = 4
	// streamInfo is the size of the first block of metadata.
	streamInfo = 34
	// flacHeader is above the longest header of a frame.
	flacHeader = 16
	// flacLast marks the last block of metadata.
	flacLast = 0x80
	// maxBlocks bounds the blocks of metadata.
	maxBlocks = 1 << 16
)

// flacInfo is what STREAMINFO says. The number of samples is not believed.
type flacInfo struct {
	rate     uint32
	channels int
	samples  uint64
}

func parseStreamInfo(b []byte) flacInfo {
	return flacInfo{
		rate: big.Uint32(b[10:]) >> 12, channels: int(b[12]>>1&7) + 1,
		samples: big.Uint64(b[10:]) & (1<<36 - 1),
	}
}

func flacDuration(r *io.SectionReader) (time.Duration, error) {
	at := int64(len(flacMark))
	var info flacInfo
	for n := range maxBlocks {
		var b [flacBlock + streamInfo]byte
		got, err := r.ReadAt(b[:], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if got < flacBlock {
			return 0, io.ErrUnexpectedEOF
		}
		size := int64(big.Uint32(b[:]) & 0xffffff)
		if n == 0 {
			if b[0]&^flacLast != 0 || size != streamInfo || got < len(b) {
				return 0, damaged("its first block is not a STREAMINFO")
			}
			info = parseStreamInfo(b[flacBlock:])
		}
		if b[0] == 0xff || size > r.Size()-at-flacBlock { // no metadata; the frames are searched for from here
			break
		}
		if at += flacBlock + size; b[0]&flacLast != 0 {
			break
		}
	}
	samples, rate, err := countFLAC(io.NewSectionReader(r, at, r.Size()-at), info)
	if err != nil {
		return 0, err
	}
	if samples == 0 {
		return 0, nil
	}
	return length(samples, uint64(rate))
}

// flacFrame is what the header of a frame says. number is that of the frame, or of its first sample where blocks
// differ.
type flacFrame struct {
	samples  uint64
	rate     uint32
	channels int
	number   uint64
	variable bool
}

// next is the number of the frame behind.
func (f flacFrame) next() uint64 {
	if f.variable {
		return f.number + f.samples
	}
	return f.number + 1
}

var flacRates = [...]uint32{0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000}

// parseFLAC reads the header of a frame, which ends with its checksum.
func parseFLAC(b []byte, info flacInfo) (f flacFrame, ok bool) {
	if len(b) < 6 || b[0] != 0xff || b[1]&0xfe != 0xf8 {
		return f, false
	}
	block, rate, channels, depth := b[2]>>4, b[2]&15, b[3]>>4, b[3]>>1&7
	if block == 0 || rate == 15 || channels > 10 || depth == 3 || b[3]&1 != 0 {
		return f, false
	}
	f = flacFrame{variable: b[1]&1 != 0, rate: info.rate, channels: 2}
	if channels < 8 {
		f.channels = int(channels) + 1
	}
	at := 4
	ones := bits.LeadingZeros8(^b[at]) // the number is written as UTF-8 is
	switch {
	case ones == 0:
		f.number = uint64(b[at])
		at++
	case ones == 1 || ones > 7 || len(b) < at+ones:
		return f, false
	default:
		f.number = uint64(b[at]) & (1<<(7-min(ones, 7)) - 1)
		for _, c := range b[at+1 : at+ones] {
			if c>>6 != 2 {
				return f, false
			}
			f.number = f.number<<6 | uint64(c&0x3f)
		}
		at += ones
	}
	behind := func(n int) (v uint64) {
		if len(b) < at+n {
			at = len(b)
			return 0
		}
		for _, c := range b[at : at+n] {
			v = v<<8 | uint64(c)
		}
		at += n
		return v
	}
	switch {
	case block == 1:
		f.samples = 192
	case block <= 5:
		f.samples = 576 << (block - 2)
	case block == 6:
		f.samples = behind(1) + 1
	case block == 7:
		f.samples = behind(2) + 1
	default:
		f.samples = 256 << (block - 8)
	}
	switch {
	case rate == 12:
		f.rate = uint32(behind(1)) * 1000
	case rate == 13:
		f.rate = uint32(behind(2))
	case rate == 14:
		f.rate = uint32(behind(2)) * 10
	case rate > 0:
		f.rate = flacRates[rate]
	}
	if at >= len(b) || crc8(b[:at]) != b[at] {
		return f, false
	}
	return f, (info.rate == 0 || f.rate == info.rate) && f.channels == info.channels
}

// flacOpen is a frame whose end is looked for: there the checksum over all of it is 0.
type flacOpen struct {
	frame flacFrame
	sum   uint16
	// ended says that the frame may have ended already, and something else is behind it.
	ended bool
}

func (o *flacOpen) feed(b []byte) {
	if o == nil {
		return
	}
	sum := o.sum
	for _, c := range b {
		if sum = sum<<8 ^ crc16[byte(sum>>8)^c]; sum == 0 {
			o.ended = true
		}
	}
	o.sum = sum
}

// flacCount counts frames without decoding them. A frame ends where its checksum says so and the next one begins, or
// where the file ends. One that is damaged or was cut off is not counted, as no decoder plays it.
type flacCount struct {
	info    flacInfo
	samples uint64
	rate    uint32
	// open is the present frame, maybe one behind a damaged place, which is proven by its own checksum.
	open, maybe *flacOpen
}

func countFLAC(r io.Reader, info flacInfo) (samples uint64, rate uint32, err error) {
	c := flacCount{info: info}
	const window = 64 << 10
	for in := bufio.NewReaderSize(r, window); ; {
		b, err := in.Peek(window)
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return 0, 0, err
		}
		known := len(b)
		if !last { // a header may go on behind what is known
			known -= flacHeader
		}
		for at := 0; at < known; {
			if b[at] == 0xff {
				c.header(b[at:min(at+flacHeader, len(b))])
			}
			next := known
			if n := bytes.IndexByte(b[at+1:known], 0xff); n >= 0 {
				next = at + 1 + n
			}
			c.open.feed(b[at:next])
			c.maybe.feed(b[at:next])
			at = next
		}
		if last {
			return c.end(), c.rate, nil
		}
		if _, err := in.Discard(known); err != nil {
			return 0, 0, err
		}
	}
}

// header looks at what may be the header of a frame.
func (c *flacCount) header(b []byte) {
	f, ok := parseFLAC(b, c.info)
	if !ok {
		return
	}
	found := &flacOpen{frame: f}
	switch {
	case c.open == nil:
		c.open, c.rate = found, f.rate
	case c.open.sum == 0:
		c.samples += c.open.frame.samples
		c.open, c.maybe = found, nil
	case c.maybe != nil && c.maybe.sum == 0:
		c.samples += c.maybe.frame.samples
		c.open, c.maybe = found, nil
	case f.number == c.open.frame.next():
		c.open, c.maybe = found, nil
	default:
		c.maybe = found
	}
}

// end returns how many samples there are.
func (c *flacCount) end() uint64 {
	switch {
	case c.open == nil:
	case c.maybe != nil && c.maybe.sum == 0:
		return c.samples + c.maybe.frame.samples
	case c.open.sum == 0, c.open.ended && c.samples+c.open.frame.samples == c.info.samples: // with something behind it
		return c.samples + c.open.frame.samples
	}
	return c.samples
}

// crc16 is the table of the checksum over a frame.
var crc16 = func() (table [256]uint16) {
	for i := range table {
		v := uint16(i) << 8
		for range 8 {
			v = v<<1 ^ (v>>15)*0x8005
		}
		table[i] = v
	}
	return table
}()

// crc8 is the checksum over the header of a frame.
func crc8(b []byte) (sum byte) {
	for _, c := range b {
		sum ^= c
		for range 8 {
			sum = sum<<1 ^ (sum>>7)*0x07
		}
	}
	return sum
}

func buffered(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, 64<<10) }
