// SPDX-License-Identifier: Apache-2.0

package audio

// aacRates are the sample rates that AAC has a number for.
var aacRates = [...]uint32{96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350}

const (
	// aacSamples is the length of a block of AAC. Where the codec doubles the rate, it doubles this too.
	aacSamples = 1024
	// adtsAlike are the bits of the first word that all frames share: sync, layer, profile, rate and channels.
	adtsAlike = 0xfffefdc0
)

// parseADTS reads the header of a frame of AAC as it is broadcast, and as Android's and other recorders store it.
func parseADTS(b []byte) (frame, bool) {
	h := big.Uint32(b)
	rate, size := h>>10&15, int(h&3)<<11|int(b[4])<<3|int(b[5]>>5)
	if h>>20 != 0xfff || h>>17&3 != 0 || rate >= uint32(len(aacRates)) {
		return frame{}, false
	}
	header := 7
	if h>>16&1 == 0 { // with a checksum
		header = 9
	}
	if size <= header {
		return frame{}, false
	}
	blocks := uint32(b[6]&3) + 1
	return frame{alike: h & adtsAlike, size: size, samples: aacSamples * blocks, rate: aacRates[rate]}, true
}
