// SPDX-License-Identifier: Apache-2.0

package audio

import "math/bits"

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
	// mpegAlike are the bits of a header that all frames of a stream share: sync, version, layer and rate.
	mpegAlike = 0xfffe0c00
)

// parseMPEG reads the header of a frame of MPEG audio.
func parseMPEG(b []byte) (f frame, ok bool) {
	h := big.Uint32(b)
	version, layer := h>>19&3, 4-h>>17&3 // version 3 is MPEG 1, 2 MPEG 2, 0 MPEG 2.5
	bitrate, rate := h>>12&15, h>>10&3
	if h>>21 != 0x7ff || version == 1 || layer == 4 || bitrate == 0 || bitrate == 15 || rate == 3 || h&3 == 2 {
		return f, false
	}
	f = frame{alike: h & mpegAlike, samples: 1152, rate: mpegRates[rate]}
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

// gap is what an encoder added to the audio, in samples at rate.
type gap struct {
	before, behind uint64
	rate           uint32
	// written is how many samples there were when the encoder had ended, 0 if it does not say.
	written uint64
}

// in returns how many of so many samples the encoder added. Of what it added behind, that much is missing in a file
// that was cut off as the file is too short.
func (g gap) in(samples uint64) uint64 {
	behind := g.behind
	if samples < g.written {
		behind -= min(behind, g.written-samples)
	}
	return min(g.before+behind, samples)
}

// Parts of a Xing frame, and where the encoder's delay and padding stand in what LAME and libavcodec put behind it.
const (
	xingFrames, xingBytes, xingTOC, xingQuality = 1, 2, 4, 8

	tocSize  = 100
	lameGaps = 21
	lameSize = lameGaps + 3
	vbriAt   = mpegHeader + 32
)

// describes reports whether a frame describes the file instead of being a part of it, and what the encoder added to the
// audio. What else it says, such as how long the file is, is not believed: the frames are counted.
func describes(b []byte, f frame) (g gap, is bool) {
	if f.info == 0 {
		return g, false
	}
	g.rate = f.rate
	if len(b) >= vbriAt+4 && string(b[vbriAt:vbriAt+4]) == "VBRI" {
		return g, true
	}
	at := f.info
	if len(b) < at+8 {
		return g, false
	}
	if mark := string(b[at : at+4]); mark != "Xing" && mark != "Info" {
		return g, false
	}
	flags := big.Uint32(b[at+4:])
	at += 8
	if flags&xingFrames != 0 && len(b) >= at+4 {
		g.written = uint64(big.Uint32(b[at:])) * uint64(f.samples)
	}
	at += 4 * bits.OnesCount32(flags&(xingFrames|xingBytes|xingQuality))
	if flags&xingTOC != 0 {
		at += tocSize
	}
	if len(b) < at+lameSize {
		return g, true
	}
	if encoder := string(b[at : at+4]); encoder != "LAME" && encoder != "Lavf" && encoder != "Lavc" {
		return g, true
	}
	// Two numbers of 12 bits: samples that were added before and behind.
	n := uint64(big.Uint32(b[at+lameGaps-1:]) & 0xffffff)
	g.before, g.behind = n>>12, n&0xfff
	return g, true
}
