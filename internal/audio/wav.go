// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"bytes"
	"io"
	"math"
	"time"
)

// Read here and not by a library: those on offer have not been touched for years, take the length from the average byte
// rate and know neither RF64 (files above 4 GiB) nor files written to a pipe, whose sizes were never filled in.

const (
	riffHeader  = 12
	chunkHeader = 8
	fmtSize     = 16
	ds64Size    = 24
	factSize    = 4
	// unknownSize stands where the writer could not know the size, or where ds64 has it.
	unknownSize = math.MaxUint32
)

// The formats of samples that are all of one size.
const (
	wavPCM        = 1
	wavFloat      = 3
	wavALaw       = 6
	wavMuLaw      = 7
	wavExtensible = 0xfffe
)

func isWAV(head []byte) bool {
	if len(head) < riffHeader || string(head[8:12]) != "WAVE" {
		return false
	}
	kind := head[:4]
	return bytes.Equal(kind, []byte("RIFF")) || bytes.Equal(kind, []byte("RF64")) || bytes.Equal(kind, []byte("BW64"))
}

// wav is what the chunks before the samples say.
type wav struct {
	kind                 uint16
	rate, bytesPerSecond uint32
	// frame is the size of one sample of all channels.
	frame uint16
	// samples and data are 0 where the file does not say them.
	samples, data uint64
}

func wavDuration(r *io.SectionReader) (time.Duration, error) {
	var riff [riffHeader]byte
	if _, err := io.ReadFull(r, riff[:]); err != nil {
		return 0, err
	}
	// A recorder that was cut off has not filled in the sizes.
	unfinished := little.Uint32(riff[4:]) <= riffHeader
	var w wav
	for at := int64(riffHeader); ; {
		var h [chunkHeader]byte
		if _, err := r.ReadAt(h[:], at); err != nil {
			return 0, damaged("it has no samples")
		}
		at += chunkHeader
		size := uint64(little.Uint32(h[4:]))
		if string(h[:4]) == "data" {
			rest := uint64(r.Size() - at)
			switch {
			case size == unknownSize && w.data != 0:
				size = w.data
			case size == 0 && unfinished:
				size = rest
			}
			return w.duration(min(size, rest))
		}
		if err := w.chunk(string(h[:4]), io.NewSectionReader(r, at, int64(size))); err != nil {
			return 0, err
		}
		at += int64(size + size%2)
	}
}

func (w *wav) chunk(id string, r *io.SectionReader) error {
	var want int
	switch id {
	case "fmt ":
		want = fmtSize
	case "ds64":
		want = ds64Size
	case "fact":
		want = factSize
	default:
		return nil
	}
	body := make([]byte, want)
	if _, err := io.ReadFull(r, body); err != nil {
		return damaged("its chunk %q is too short", id)
	}
	switch id {
	case "fmt ":
		w.kind, w.rate, w.bytesPerSecond, w.frame = little.Uint16(body), little.Uint32(body[4:]), little.Uint32(body[8:]), little.Uint16(body[12:])
	case "ds64":
		w.data, w.samples = little.Uint64(body[8:]), little.Uint64(body[16:])
	case "fact":
		if n := little.Uint32(body); n != unknownSize {
			w.samples = uint64(n)
		}
	}
	return nil
}

// duration of so many bytes of samples.
func (w *wav) duration(size uint64) (time.Duration, error) {
	switch w.kind {
	case 0:
		return 0, damaged("it does not say its format before the samples")
	case wavPCM, wavFloat, wavALaw, wavMuLaw, wavExtensible:
		if w.frame == 0 {
			return 0, damaged("its samples have no size")
		}
		return length(size/uint64(w.frame), uint64(w.rate))
	}
	// Compressed: only the writer knows how many samples there are, unless the rate is constant.
	if w.samples > 0 && size > 0 {
		return length(w.samples, uint64(w.rate))
	}
	return length(size, uint64(w.bytesPerSecond))
}
