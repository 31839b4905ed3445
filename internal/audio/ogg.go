// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"bytes"
	"errors"
	"io"
	"math"
	"time"

	"github.com/pion/webrtc/v4/pkg/media/oggreader"
)

const (
	opusRate = 48000
	// noGranule marks a page on which no packet ends.
	noGranule = math.MaxUint64
	// maxStreams bounds what is kept of a file that has nothing but beginnings.
	maxStreams = 1 << 10
)

// oggCodec is a codec that Ogg carries: how its first page begins, and which rate that gives the positions of all pages.
type oggCodec struct {
	mark string
	// least is the size of the first page that rate and skip need.
	least int
	rate  func(page []byte) uint32
	// skip is how many samples at the beginning are not to be played.
	skip func(page []byte) uint64
}

func none([]byte) uint64 { return 0 }

var oggCodecs = []oggCodec{
	{"OpusHead", 19, func([]byte) uint32 { return opusRate }, func(p []byte) uint64 { return uint64(little.Uint16(p[10:])) }},
	{"\x01vorbis", 30, func(p []byte) uint32 { return little.Uint32(p[12:]) }, none},
	{"\x7fFLAC", 31, func(p []byte) uint32 { return big.Uint32(p[27:]) >> 12 }, none},
	{"Speex   ", 40, func(p []byte) uint32 { return little.Uint32(p[36:]) }, none},
}

// oggStream is one logical stream of audio.
type oggStream struct {
	rate uint32
	skip uint64
	end  uint64
}

// oggFile adds up the links of a chain, of each the longest stream of audio.
type oggFile struct {
	total   time.Duration
	streams map[uint32]*oggStream
	// begun says that the link has gone beyond its first pages, so another first page is that of the next link.
	begun bool
}

func oggDuration(r *io.SectionReader) (time.Duration, error) {
	reader, err := oggreader.NewWithOptions(buffered(r))
	if err != nil {
		return 0, err
	}
	f := &oggFile{streams: map[uint32]*oggStream{}}
	for {
		page, header, err := reader.ParseNextPage()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // A recording that was cut off is as long as what there is.
			if len(f.streams) == 0 {
				return 0, errors.New("no stream of Vorbis, Opus, FLAC or Speex is in it")
			}
			err := f.endLink()
			return f.total, err
		case err != nil:
			return 0, damaged("%v", err)
		}
		if err := f.page(page, header); err != nil {
			return 0, err
		}
	}
}

func (f *oggFile) page(page []byte, header *oggreader.OggPageHeader) error {
	if stream, starts := oggStart(page); starts && header.GranulePosition == 0 {
		if f.begun {
			if err := f.endLink(); err != nil {
				return err
			}
			clear(f.streams)
			f.begun = false
		}
		if len(f.streams) == maxStreams {
			return damaged("more than %d streams begin together", maxStreams)
		}
		f.streams[header.Serial] = stream
		return nil
	}
	s := f.streams[header.Serial]
	if s == nil || header.GranulePosition == noGranule {
		return nil
	}
	f.begun = true
	if header.GranulePosition < math.MaxInt64 {
		s.end = max(s.end, header.GranulePosition)
	}
	return nil
}

func (f *oggFile) endLink() error {
	var most time.Duration
	for _, s := range f.streams {
		d, err := length(s.end-min(s.skip, s.end), uint64(s.rate))
		if err != nil {
			return err
		}
		most = max(most, d)
	}
	var err error
	f.total, err = add(f.total, most)
	return err
}

// oggStart reads the first page of a stream of audio.
func oggStart(page []byte) (*oggStream, bool) {
	for _, c := range oggCodecs {
		if len(page) >= c.least && bytes.HasPrefix(page, []byte(c.mark)) {
			return &oggStream{rate: c.rate(page), skip: c.skip(page)}, true
		}
	}
	return nil, false
}
