// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"errors"
	"io"
	"math"
	"slices"
	"time"
)

// Read here and not by a library: those on offer have not been touched for years, take the length from the average byte
// rate and know neither RF64 (files above 4 GiB) nor files whose sizes were never filled in, or wrongly.

const (
	riffHeader  = 12
	chunkHeader = 8
	fmtSize     = 16
	// fmtLong is the size of a format that names its codec by a GUID, which stands at subFormat.
	fmtLong   = 40
	subFormat = 24
	ds64Size  = 24
	factSize  = 4
	// unknownSize stands where the writer could not know the size, or where ds64 has it.
	unknownSize = math.MaxUint32
)

// The codecs that are known by their numbers: those whose samples are all of one size, those whose blocks are and say
// how many samples they hold, and MPEG audio.
const (
	wavPCM        = 1
	wavMSADPCM    = 2
	wavFloat      = 3
	wavALaw       = 6
	wavMuLaw      = 7
	wavIMAADPCM   = 0x11
	wavGSM        = 0x31
	wavMPEG       = 0x50
	wavMP3        = 0x55
	wavExtensible = 0xfffe
)

// wavHalfByte are the codecs that make half a byte of each sample: OKI's, Dialogic's, Yamaha's, and G.722 by two
// numbers. What their files say of bytes a second is often wrong.
var wavHalfByte = []uint16{0x10, 0x17, 0x20, 0x65, 0x28f}

func isWAV(head []byte) bool {
	if len(head) < riffHeader || string(head[8:12]) != "WAVE" {
		return false
	}
	kind := string(head[:4])
	return kind == "RIFF" || kind == "RF64" || kind == "BW64"
}

// wav is what the chunks before the samples say.
type wav struct {
	kind                 uint16
	rate, bytesPerSecond uint32
	channels, bits       uint16
	// frame is the size of one sample of all channels, or of a block of them where they are compressed.
	frame uint16
	// perBlock is how many samples are in a compressed block, 0 if it is not said.
	perBlock uint16
	// samples and data are 0 where the file does not say them.
	samples, data uint64
}

func wavDuration(r *io.SectionReader) (time.Duration, error) {
	var w wav
	for at := int64(riffHeader); ; {
		var h [chunkHeader]byte
		if _, err := r.ReadAt(h[:], at); err != nil {
			return 0, damaged("it has no samples")
		}
		at += chunkHeader
		size := uint64(little.Uint32(h[4:]))
		if string(h[:4]) == "data" {
			if size == unknownSize && w.data != 0 {
				size = w.data
			}
			there, err := measured(r, at, size, max(int64(w.bytesPerSecond), 1), little.Uint32)
			if err != nil {
				return 0, err
			}
			return w.duration(io.NewSectionReader(r, at, there))
		}
		if err := w.chunk(string(h[:4]), io.NewSectionReader(r, at, int64(size))); err != nil {
			return 0, err
		}
		at += int64(size + size%2)
	}
}

// measured returns how many bytes of samples begin at a place, where the file claims so many; second is how many are a
// second.
func measured(r *io.SectionReader, at int64, claimed uint64, second int64, order func([]byte) uint32) (int64, error) {
	rest := r.Size() - at
	if claimed >= uint64(rest) {
		return rest, nil
	}
	if claimed == 0 {
		second = 0
	}
	more, err := goesOn(r, at+int64(claimed), second, order)
	if more {
		return rest, err
	}
	return int64(claimed), err
}

// goesOn reports whether the samples go on behind the place where a chunk claims that they end: the header was written
// before them, or with 32 bits where there are more. What else may be there are chunks, zeros, and a few bytes of
// something, less than a second of samples is long.
func goesOn(r *io.SectionReader, at, second int64, order func([]byte) uint32) (bool, error) {
	if r.Size()-at < max(second, chunkHeader) {
		return false, nil
	}
	if areChunks(r, at, order) || areChunks(r, at+1, order) {
		return false, nil
	}
	zero, err := isZero(io.NewSectionReader(r, at, r.Size()-at))
	return second == 0 || !zero, err
}

// maxChunks bounds how many chunks are followed in order to see whether they are some.
const maxChunks = 1 << 10

// areChunks reports whether a file consists of chunks from a place on to its end.
func areChunks(r *io.SectionReader, at int64, order func([]byte) uint32) bool {
	for n := range maxChunks {
		var h [chunkHeader]byte
		if r.Size()-at < chunkHeader {
			return n > 0
		}
		if _, err := r.ReadAt(h[:], at); err != nil {
			return false
		}
		for _, c := range h[:4] {
			if c < ' ' || c > '~' {
				// Some writers leave the odd byte out that fills up a chunk.
				return n > 0 && r.Size()-at < 2*chunkHeader
			}
		}
		size := int64(order(h[4:]))
		if at += chunkHeader + size + size%2; at > r.Size()+1 {
			return false
		}
	}
	return true
}

func isZero(r io.Reader) (bool, error) {
	block := make([]byte, 64<<10)
	for {
		n, err := r.Read(block)
		for _, b := range block[:n] {
			if b != 0 {
				return false, nil
			}
		}
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
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
	body := make([]byte, fmtLong)
	if n, err := io.ReadFull(r, body); n < want {
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		return damaged("its chunk %q is too short", id)
	}
	switch id {
	case "fmt ":
		w.kind, w.channels, w.rate = little.Uint16(body), little.Uint16(body[2:]), little.Uint32(body[4:])
		w.bytesPerSecond, w.frame, w.bits = little.Uint32(body[8:]), little.Uint16(body[12:]), little.Uint16(body[14:])
		if w.kind == wavExtensible {
			w.kind = little.Uint16(body[subFormat:])
		}
		switch w.kind {
		case wavMSADPCM, wavIMAADPCM, wavGSM:
			w.perBlock = little.Uint16(body[fmtSize+2:])
		}
	case "ds64":
		w.data, w.samples = little.Uint64(body[8:]), little.Uint64(body[16:])
	case "fact":
		if n := little.Uint32(body); n != unknownSize {
			w.samples = uint64(n)
		}
	}
	return nil
}

// duration of these samples.
func (w *wav) duration(data *io.SectionReader) (time.Duration, error) {
	size := uint64(data.Size())
	switch w.kind {
	case 0:
		return 0, damaged("it does not say its format before the samples")
	case wavPCM, wavFloat, wavALaw, wavMuLaw:
		frame := uint64(w.channels) * uint64((w.bits+7)/8)
		if w.frame != 0 && (frame == 0 || uint64(w.frame) > frame) { // samples may fill a part of their bytes only
			frame = uint64(w.frame)
		}
		if frame == 0 {
			return 0, damaged("its samples have no size")
		}
		return length(size/frame, uint64(w.rate))
	case wavMPEG, wavMP3:
		return framesDuration(parseMPEG)(data)
	}
	there, rate := size, uint64(w.bytesPerSecond)
	switch {
	case w.perBlock > 0 && w.frame > 0:
		there, rate = w.blocks(size), uint64(w.rate)
	case slices.Contains(wavHalfByte, w.kind) && w.channels > 0:
		there, rate = size*2/uint64(w.channels), uint64(w.rate)
	}
	d, err := length(there, rate)
	if err != nil || w.samples == 0 {
		return d, err
	}
	// Only the writer knows how much of the last block is audio.
	said, err := length(w.samples, uint64(w.rate))
	block, _ := length(uint64(w.perBlock), uint64(max(w.rate, 1)))
	if err == nil && said < d && said >= d-max(block, d/50) {
		d = said
	}
	return d, nil
}

// blocks returns how many samples so many bytes of compressed blocks hold.
func (w *wav) blocks(size uint64) uint64 {
	whole, part := size/uint64(w.frame), size%uint64(w.frame)
	return whole*uint64(w.perBlock) + part*uint64(w.perBlock)/uint64(w.frame)
}
