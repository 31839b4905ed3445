// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"time"
)

// Read here and not by a library: those that can be had end at the first damaged page.

const (
	oggMark   = "OggS"
	oggHeader = 27
	// oggPage is above the longest page.
	oggPage = oggHeader + 255 + 255*255
	// Flags of a page: its first packet goes on from the page before, it is the first or the last one of its stream.
	oggContinued, oggFirst, oggLast = 1, 2, 4
	// noGranule marks a page on which no packet ends.
	noGranule = math.MaxUint64
	// maxStreams bounds what is kept of a file that has nothing but beginnings.
	maxStreams = 64
	// maxSetup bounds what is kept of a header; Vorbis' third one has a few kilobytes.
	maxSetup = 1 << 18
	// oggWork is how often each byte may be a part of something that looks like a page and is none.
	oggWork = 4
)

// oggStream is one logical stream of audio.
type oggStream struct {
	rate uint32
	// headers is how many packets there are still before the audio, setup the last one of them if it is needed.
	headers int
	codec   packets
	// skip is how many samples at the beginning are not to be played.
	skip uint64
	// first is the first packet, of Vorbis.
	first []byte

	// partial is what is kept of a packet that is not complete yet.
	partial []byte
	lost    bool
	// granule is the position that the last page gave, begun that there was one.
	granule uint64
	begun   bool
	samples uint64
}

// oggStart reads the first packet of a stream of audio.
func oggStart(p []byte) (*oggStream, bool) {
	switch {
	case len(p) >= 19 && bytes.HasPrefix(p, []byte("OpusHead")):
		return &oggStream{rate: opusRate, headers: 1, codec: opus{}, skip: uint64(little.Uint16(p[10:]))}, true
	case len(p) >= vorbisIdentification && bytes.HasPrefix(p, []byte("\x01vorbis")):
		return &oggStream{rate: little.Uint32(p[vorbisRate:]), headers: 2, first: bytes.Clone(p)}, true
	case len(p) >= 13+flacBlock+streamInfo && bytes.HasPrefix(p, []byte("\x7fFLAC")):
		info := parseStreamInfo(p[13+flacBlock:])
		return &oggStream{rate: info.rate, headers: int(big.Uint16(p[7:])), codec: flacPackets{info}}, true
	case len(p) >= 80 && bytes.HasPrefix(p, []byte("Speex   ")):
		packet := uint64(little.Uint32(p[56:])) * uint64(max(little.Uint32(p[64:]), 1))
		headers := 1 + int(little.Uint32(p[68:])&0xff)
		return &oggStream{rate: little.Uint32(p[36:]), headers: headers, codec: fixed(min(packet, maxPacket))}, true
	}
	return nil, false
}

// oggFile adds up the links of a chain, of each the longest stream of audio.
type oggFile struct {
	total   time.Duration
	streams map[uint32]*oggStream
	known   bool
	// begun says that the link has gone beyond its first pages, so another first page is that of the next link.
	begun bool
}

func oggDuration(r *io.SectionReader) (time.Duration, error) {
	f := &oggFile{streams: map[uint32]*oggStream{}}
	work := r.Size() * oggWork
	for in := bufio.NewReaderSize(r, oggPage); ; {
		page, err := nextPage(in, &work)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if err != nil { // A recording that was cut off is as long as what there is.
			if !f.known {
				return 0, errors.New("no stream of Vorbis, Opus, FLAC or Speex is in it")
			}
			err := f.endLink()
			return f.total, err
		}
		if err := f.page(page); err != nil {
			return 0, err
		}
		if _, err := in.Discard(len(page)); err != nil {
			return 0, err
		}
	}
}

// nextPage returns the next page that is whole, and passes over what is none. It stops at a file that is nothing but
// marks of pages, each of which would have to be looked at as a whole.
func nextPage(in *bufio.Reader, work *int64) ([]byte, error) {
	for {
		b, err := in.Peek(oggPage)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if len(b) < oggHeader {
			return nil, io.EOF
		}
		if size := pageSize(b); size > 0 {
			if crc32Ogg(b[:size]) == little.Uint32(b[22:]) {
				return b[:size], nil
			}
			if *work -= int64(size); *work < 0 {
				return nil, damaged("most of its pages are")
			}
		}
		n := bytes.Index(b[1:], []byte(oggMark)) + 1
		if n == 0 {
			n = max(len(b)-len(oggMark), 1)
		}
		if _, err := in.Discard(n); err != nil {
			return nil, err
		}
	}
}

// pageSize returns the size of the page that b begins with, or 0.
func pageSize(b []byte) int {
	if string(b[:4]) != oggMark || b[4] != 0 {
		return 0
	}
	size := oggHeader + int(b[26])
	if size > len(b) {
		return 0
	}
	for _, n := range b[oggHeader:size] {
		size += int(n)
	}
	if size > len(b) {
		return 0
	}
	return size
}

func (f *oggFile) page(page []byte) error {
	serial, granule, flags := little.Uint32(page[14:]), little.Uint64(page[6:]), page[5]
	body := oggHeader + int(page[26])
	lacing, data := page[oggHeader:body], page[body:]
	if flags&oggFirst != 0 {
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
		if s, ok := oggStart(data); ok {
			f.known = true
			f.streams[serial] = s
		}
		return nil
	}
	f.begun = true
	if s := f.streams[serial]; s != nil {
		s.page(lacing, data, granule, flags)
	}
	return nil
}

// page counts the packets that end on a page.
func (s *oggStream) page(lacing, data []byte, granule uint64, flags byte) {
	if flags&oggContinued == 0 {
		s.partial, s.lost = s.partial[:0], false
	} else if len(s.partial) == 0 {
		s.lost = true // the packet began on a page that is not there
	}
	var added uint64
	audio := false
	for size, at := 0, 0; len(lacing) > 0; lacing = lacing[1:] {
		size += int(lacing[0])
		if lacing[0] == 255 && len(lacing) > 1 {
			continue
		}
		keep := packetHead
		if s.headers > 0 {
			keep = maxSetup
		}
		s.partial = append(s.partial, data[at:at+min(size, max(keep-len(s.partial), 0))]...)
		at, size = at+size, 0
		if lacing[0] == 255 {
			break // the next page has the rest of it
		}
		if !s.lost {
			if s.headers > 0 {
				s.header(s.partial)
			} else if s.codec != nil {
				added += s.codec.samples(s.partial)
				audio = true
			}
		}
		s.partial, s.lost = s.partial[:0], false
	}
	if audio {
		s.samples += s.played(added, granule, flags)
	}
	if granule != noGranule {
		s.granule, s.begun = granule, s.begun || audio
	}
}

// played returns how much is to be played of what the packets of a page add: less where the first or the last page says
// so. The positions are believed in nothing else, since those of a part of a stream begin anywhere.
func (s *oggStream) played(added, granule uint64, flags byte) uint64 {
	switch {
	case granule >= math.MaxInt64:
	case flags&oggLast != 0 && s.begun && granule >= s.granule:
		return min(added, granule-s.granule)
	case !s.begun && granule > 0:
		return min(added, granule)
	}
	return added
}

// header takes a packet that comes before the audio.
func (s *oggStream) header(p []byte) {
	s.headers--
	if s.headers == 0 && s.first != nil {
		if v, ok := newVorbis(s.first, p); ok {
			s.codec = v
		}
	}
}

func (f *oggFile) endLink() error {
	var most time.Duration
	for _, s := range f.streams {
		d, err := length(s.samples-min(s.skip, s.samples), uint64(s.rate))
		if err != nil {
			return err
		}
		most = max(most, d)
	}
	var err error
	f.total, err = add(f.total, most)
	return err
}

// crc32Ogg is the checksum of a page, in which the place of the checksum counts as zeros.
func crc32Ogg(page []byte) (sum uint32) {
	const at, size = 22, 4
	for _, part := range [...][]byte{page[:at], make([]byte, size), page[at+size:]} {
		for _, c := range part {
			sum = sum<<8 ^ oggTable[byte(sum>>24)^c]
		}
	}
	return sum
}

var oggTable = func() (table [256]uint32) {
	for i := range table {
		v := uint32(i) << 24
		for range 8 {
			v = v<<1 ^ (v>>31)*0x04c11db7
		}
		table[i] = v
	}
	return table
}()
