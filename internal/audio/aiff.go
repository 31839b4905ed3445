// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"io"
	"math"
	"time"
)

const (
	commSize   = 18
	commLong   = 22
	ssndHeader = 8
)

func isAIFF(head []byte) bool {
	if len(head) < riffHeader || string(head[:4]) != "FORM" {
		return false
	}
	kind := string(head[8:12])
	return kind == "AIFF" || kind == "AIFC"
}

// aiffDuration counts the samples. How many there are is said in two more places, of which neither is believed.
func aiffDuration(r *io.SectionReader) (time.Duration, error) {
	var c pcm
	for at := int64(riffHeader); ; {
		var h [chunkHeader]byte
		if _, err := r.ReadAt(h[:], at); err != nil {
			return 0, damaged("it has no samples")
		}
		at += chunkHeader
		size := int64(big.Uint32(h[4:]))
		switch string(h[:4]) {
		case "COMM":
			body := make([]byte, commLong)
			if _, err := r.ReadAt(body[:min(size, commLong)], at); err != nil || size < commSize {
				return 0, damaged("its chunk \"COMM\" is too short")
			}
			c = aiffFormat(body)
		case "SSND":
			var b [ssndHeader]byte
			if _, err := r.ReadAt(b[:], at); err != nil {
				return 0, damaged("it has no samples")
			}
			if size <= ssndHeader { // it was never filled in
				size = 0
			}
			skip := ssndHeader + int64(big.Uint32(b[:]))
			start := min(at+skip, r.Size())
			there, err := measured(r, start, uint64(max(size-skip, 0)), c.bytesPerSecond(), big.Uint32)
			if err != nil {
				return 0, err
			}
			return c.duration(uint64(there))
		}
		at += size + size%2
	}
}

// pcm are samples of one size, or blocks of one size that hold so many samples.
type pcm struct {
	kind     string
	rate     float64
	size     uint64
	perBlock uint64
}

func (c pcm) bytesPerSecond() int64 {
	if c.perBlock == 0 || !(c.rate > 0 && c.rate < math.MaxUint32) {
		return 1
	}
	return int64(c.rate*float64(c.size)/float64(c.perBlock)) + 1
}

// duration of so many bytes.
func (c pcm) duration(bytes uint64) (time.Duration, error) {
	if c.kind == "" {
		return 0, damaged("it does not say its format before the samples")
	}
	if c.size == 0 || c.perBlock == 0 {
		return 0, damaged("the size of samples of %q is not known", c.kind)
	}
	return c.length(bytes / c.size * c.perBlock)
}

// length returns how long n samples take.
func (c pcm) length(n uint64) (time.Duration, error) {
	if !(c.rate > 0 && c.rate < math.MaxUint32) {
		return 0, damaged("its sample rate is %g", c.rate)
	}
	whole, part := math.Modf(c.rate)
	if part == 0 {
		return length(n, uint64(whole))
	}
	d := float64(n) / c.rate * float64(time.Second)
	if d >= math.MaxInt64 {
		return 0, damaged("it claims %d samples at %g Hz", n, c.rate)
	}
	return time.Duration(d), nil
}

// aiffFormat reads the body of a COMM chunk, with zeros behind where it is a short one.
func aiffFormat(b []byte) pcm {
	c := pcm{kind: string(b[commSize:commLong]), rate: extended(b[8:18]), perBlock: 1}
	channels, bits := uint64(big.Uint16(b)), uint64(big.Uint16(b[6:]))
	switch c.kind {
	case "ima4":
		c.size, c.perBlock = 34*channels, 64
	case "alaw", "ALAW", "ulaw", "ULAW":
		c.size = channels
	case "GSM ":
		c.size, c.perBlock = 33, 160
	case "\x00\x00\x00\x00", "NONE", "twos", "sowt", "raw ", "in24", "in32", "fl32", "FL32", "fl64", "FL64":
		c.size = channels * ((bits + 7) / 8)
	}
	return c
}

// extended reads a number of 80 bits: sign and exponent, and a mantissa with its leading one.
func extended(b []byte) float64 {
	exponent := int(big.Uint16(b)&0x7fff) - 16383 - 63
	return math.Ldexp(float64(big.Uint64(b[2:])), exponent)
}
