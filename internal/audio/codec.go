// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"math"
	"math/bits"
)

// packets tells how long the packets of a codec are, which containers such as Ogg and Matroska carry one by one.
type packets interface {
	// samples returns how many samples the packet that begins with b adds.
	samples(b []byte) uint64
}

const (
	// packetHead is more than the part of a packet that says how long it is.
	packetHead = 64

	opusRate = 48000
	// opusLongest is the longest packet.
	opusLongest = opusRate * 120 / 1000
)

// opus is the codec of that name, whose lengths are all at 48 kHz.
type opus struct{}

// samples reads the first two bytes: the mode, and how many frames there are.
func (opus) samples(b []byte) uint64 {
	if len(b) == 0 {
		return 0
	}
	mode, frames := b[0]>>3, uint64(1)
	var frame uint64
	switch {
	case mode < 12:
		frame = [...]uint64{480, 960, 1920, 2880}[mode&3]
	case mode < 16:
		frame = [...]uint64{480, 960}[mode&1]
	default:
		frame = 120 << (mode & 3)
	}
	switch b[0] & 3 {
	case 1, 2:
		frames = 2
	case 3:
		if len(b) < 2 {
			return 0
		}
		frames = uint64(b[1] & 63)
	}
	if n := frame * frames; n <= opusLongest {
		return n
	}
	return 0
}

// fixed is a codec whose packets are all of one length.
type fixed uint64

func (f fixed) samples([]byte) uint64 { return uint64(f) }

// alac is Apple's codec, whose packets are all of one length but for the last one, which says so.
type alac uint64

func (a alac) samples(b []byte) uint64 {
	const (
		head    = 7
		partial = 1 << 4 // the 20th bit
	)
	if len(b) >= head && b[2]&partial != 0 {
		return min(big.Uint64(append([]byte{0}, b[:head]...))>>1&math.MaxUint32, uint64(a))
	}
	return uint64(a)
}

// flacPackets are frames of FLAC.
type flacPackets struct{ info flacInfo }

func (p flacPackets) samples(b []byte) uint64 {
	f, _ := parseFLAC(b[:min(len(b), flacHeader)], p.info)
	return f.samples
}

// mpegPackets are frames of MPEG audio, one or several in a packet.
type mpegPackets struct{}

func (mpegPackets) samples(b []byte) uint64 {
	if len(b) < frameHeader {
		return 0
	}
	f, _ := parseMPEG(b)
	return uint64(f.samples)
}

// vorbis is the codec of that name: a packet is as long as half its block and half the one before, and which of two
// sizes a block has follows from the packet's mode.
type vorbis struct {
	sizes [2]uint64
	// long tells of each mode which size its blocks have.
	long []bool
	last uint64
}

// Parts of Vorbis' headers.
const (
	vorbisIdentification = 30
	vorbisRate           = 12
	vorbisBlocks         = 28
	// vorbisMode is the size of a mode in bits: the size of its blocks, two numbers of 16 bits that are 0, and a
	// mapping.
	vorbisMode = 41
	maxModes   = 64
)

// newVorbis reads the first and the third header. The third one is a stream of bits without landmarks; but its modes
// are the last thing in it, and can be read from the end: each one is mostly zeros, and before them is their number.
func newVorbis(identification, setup []byte) (*vorbis, bool) {
	if len(identification) < vorbisIdentification {
		return nil, false
	}
	b := identification[vorbisBlocks]
	v := &vorbis{sizes: [2]uint64{1 << (b & 15), 1 << (b >> 4)}}
	end := len(setup) * 8
	bit := func(i int) int {
		if i < 0 {
			return 1
		}
		return int(setup[i/8] >> (i % 8) & 1)
	}
	for end > 0 && bit(end-1) == 0 {
		end--
	}
	end-- // the bit that frames the header
	read := func(at, n int) (value int) {
		for i := range n {
			value |= bit(at+i) << i
		}
		return value
	}
	found := 0
	var flags []bool
	for n := 1; n <= maxModes; n++ {
		at := end - n*vorbisMode
		if at < 6 || read(at+1, 16) != 0 || read(at+17, 16) != 0 || read(at+33, 8) >= maxModes {
			break
		}
		flags = append(flags, bit(at) == 1)
		if read(at-6, 6)+1 == n {
			found = n // the largest number that fits is the right one
		}
	}
	if found == 0 {
		return nil, false
	}
	for i := range found {
		v.long = append(v.long, flags[found-1-i])
	}
	return v, true
}

func (v *vorbis) samples(b []byte) uint64 {
	if len(b) == 0 || b[0]&1 != 0 {
		return 0
	}
	mode := int(b[0]>>1) & (1<<bits.Len(uint(len(v.long)-1)) - 1)
	if mode >= len(v.long) {
		return 0
	}
	block := v.sizes[0]
	if v.long[mode] {
		block = v.sizes[1]
	}
	last := v.last
	if v.last = block; last == 0 {
		return 0
	}
	return (last + block) / 4
}
