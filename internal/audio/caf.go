// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"bufio"
	"io"
	"math"
	"time"
)

const (
	cafHeader = 8
	cafChunk  = 12
	descSize  = 32
	paktSize  = 24
	// cafEdits is a counter before the samples.
	cafEdits = 4
	// cafUnknown is the size of the samples where they go on to the end of the file.
	cafUnknown = math.MaxUint64
	// maxPacket is above the number of samples in a packet of any codec.
	maxPacket = 1 << 20
)

// caf is what the chunks of a file say.
type caf struct {
	pcm

	// data are the samples, packets the table of their sizes where these differ.
	data, packets *io.SectionReader
}

// cafDuration counts the packets that are there.
func cafDuration(r *io.SectionReader) (time.Duration, error) {
	var c caf
	for at := int64(cafHeader); r.Size()-at >= cafChunk; {
		var h [cafChunk]byte
		if _, err := r.ReadAt(h[:], at); err != nil {
			return 0, err
		}
		at += cafChunk
		size := big.Uint64(h[4:])
		rest := r.Size() - at
		there := int64(min(size, uint64(rest)))
		body := io.NewSectionReader(r, at, there)
		switch string(h[:4]) {
		case "desc":
			if err := c.describe(body); err != nil {
				return 0, err
			}
		case "data":
			if size == 0 { // it was never filled in
				there, size = rest, cafUnknown
			}
			c.data = io.NewSectionReader(r, at+min(cafEdits, there), there-min(cafEdits, there))
		case "pakt":
			c.packets = body
		}
		if size > uint64(rest) {
			break
		}
		at += there
	}
	if c.data == nil {
		return 0, damaged("it has no samples")
	}
	if c.kind == ".mp3" && c.packets == nil {
		return framesDuration(parseMPEG)(c.data)
	}
	if c.packets != nil {
		return c.counted()
	}
	return c.duration(uint64(c.data.Size()))
}

func (c *caf) describe(body *io.SectionReader) error {
	b := make([]byte, descSize)
	if _, err := body.ReadAt(b, 0); err != nil {
		return damaged("its chunk \"desc\" is too short")
	}
	c.rate, c.kind = math.Float64frombits(big.Uint64(b)), string(b[8:12])
	c.size, c.perBlock = uint64(big.Uint32(b[16:])), uint64(big.Uint32(b[20:]))
	if c.perBlock > maxPacket {
		return damaged("it claims %d samples in a packet", c.perBlock)
	}
	return nil
}

// counted returns the length of the packets in the table that are there as a whole, without what the encoder added.
func (c *caf) counted() (time.Duration, error) {
	var h [paktSize]byte
	if _, err := c.packets.ReadAt(h[:], 0); err != nil {
		return 0, damaged("its chunk \"pakt\" is too short")
	}
	packets, valid := big.Uint64(h[:]), big.Uint64(h[8:])
	before, behind := uint64(big.Uint32(h[16:])), uint64(big.Uint32(h[20:]))
	table := buffered(io.NewSectionReader(c.packets, paktSize, c.packets.Size()-paktSize))
	var samples, bytes, n, last uint64
	for ; n < packets && (c.size == 0 || c.perBlock == 0); n++ {
		size, frames := c.size, c.perBlock
		var ok bool
		if size == 0 {
			if size, ok = variable(table); !ok {
				break
			}
		}
		if frames == 0 {
			if frames, ok = variable(table); !ok {
				break
			}
		}
		if size > uint64(c.data.Size())-bytes {
			break
		}
		bytes, last = bytes+size, size
		if samples+frames < samples {
			return 0, damaged("its packets are longer than can be counted")
		}
		samples += frames
	}
	if c.size > 0 && c.perBlock > 0 {
		n = uint64(c.data.Size()) / c.size
		samples = n * c.perBlock
	}
	if c.kind == "alac" && n > 0 && c.perBlock > 0 {
		b := make([]byte, min(last, frameHeader))
		if _, err := c.data.ReadAt(b, int64(bytes-last)); err != nil {
			return 0, err
		}
		samples -= c.perBlock - alac(c.perBlock).samples(b)
	}
	if n < packets { // what was added behind is not there
		behind = 0
	}
	samples -= min(before+behind, samples)
	// The last packet may not be full.
	if n >= packets && valid < samples && samples-valid < max(c.perBlock, 1) {
		samples = valid
	}
	return c.length(samples)
}

// variable reads a number of seven bits a byte, of which all but the last one have the eighth set.
func variable(in *bufio.Reader) (n uint64, ok bool) {
	for range 9 {
		b, err := in.ReadByte()
		if err != nil {
			return 0, false
		}
		if n = n<<7 | uint64(b&0x7f); b < 0x80 {
			return n, true
		}
	}
	return 0, false
}
