// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"time"
)

// Read here and not by a library: those that can be had collect a packet of pictures until the next one begins, however
// long that takes.

const (
	tsSync   = 0x47
	tsPacket = 188
	// tsSyncs is how many packets must follow each other for the first one to be believed.
	tsSyncs = 3
	// maxSection bounds a table.
	maxSection = 1 << 12
	// maxPrograms and maxAudio bound what is followed.
	maxPrograms, maxTSAudio = 64, 32
	// ptsClock is the rate of the times of packets, which have 33 bits.
	ptsClock = 90000
)

// tsSizes are those of packets: as broadcast, with the time when each came, and with a correction of errors.
var tsSizes = []int{tsPacket, 192, 204}

func isTS(head []byte) bool {
	_, _, ok := tsFrame(head)
	return ok
}

// tsFrame returns the size of packets and where the first one begins that is there as a whole.
func tsFrame(head []byte) (size, at int, ok bool) {
	for _, size := range tsSizes {
		for at := range min(size, len(head)) {
			n := 0
			for i := at; i < len(head) && head[i] == tsSync; i += size {
				if n++; i+size >= len(head) && n >= tsSyncs {
					return size, at, true
				}
			}
		}
	}
	return 0, 0, false
}

// tsStream is a stream of audio.
type tsStream struct {
	// frames counts the frames of those codecs whose frames are known, clock measures the others.
	frames *frames
	clock  clock
	// private says that nothing tells what the stream is but its content.
	private bool
	// counter is the number of the last packet, by which one that is sent twice is known.
	counter int
	// wraps is how much the times of packets have wrapped around so far.
	pts, wraps int64
	begun      bool
}

type tsFile struct {
	// programs are the tables of programs, by their packets' number, streams those of audio.
	programs map[uint16][]byte
	streams  map[uint16]*tsStream
}

func tsDuration(r *io.SectionReader) (time.Duration, error) {
	head := make([]byte, min(headSize, r.Size()))
	if _, err := r.ReadAt(head, 0); err != nil {
		return 0, err
	}
	size, at, _ := tsFrame(head)
	f := &tsFile{programs: map[uint16][]byte{0: nil}, streams: map[uint16]*tsStream{}}
	in := bufio.NewReaderSize(io.NewSectionReader(r, int64(at), r.Size()-int64(at)), 64<<10)
	for {
		b, err := in.Peek(tsSyncs * size)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if len(b) < tsPacket {
			return f.end()
		}
		n := 1
		if b[0] == tsSync && (len(b) <= size || b[size] == tsSync || len(b) <= 2*size || b[2*size] == tsSync) {
			if err := f.packet(b[:tsPacket]); err != nil {
				return 0, err
			}
			n = min(size, len(b))
		} else if k := bytes.IndexByte(b[1:], tsSync); k > 0 {
			n = k + 1
		}
		if _, err := in.Discard(n); err != nil {
			return 0, err
		}
	}
}

func (f *tsFile) packet(b []byte) error {
	pid, starts := big.Uint16(b[1:])&0x1fff, b[1]&0x40 != 0
	if b[1]&0x80 != 0 || b[3]&0xc0 != 0 || b[3]&0x10 == 0 { // damaged, scrambled, or without content
		return nil
	}
	body := b[4:]
	if b[3]&0x20 != 0 {
		n := 1 + int(body[0])
		if n > len(body) {
			return nil
		}
		body = body[n:]
	}
	if s := f.streams[pid]; s != nil {
		if counter := int(b[3] & 15); counter != s.counter {
			s.counter = counter
			s.packet(body, starts)
		}
		return nil
	}
	if table, ok := f.programs[pid]; ok {
		return f.section(pid, table, body, starts)
	}
	return nil
}

// section collects a table, and reads it when it is complete.
func (f *tsFile) section(pid uint16, table, body []byte, starts bool) error {
	if starts {
		if len(body) == 0 || int(body[0]) >= len(body) {
			return nil
		}
		table, body = nil, body[1+int(body[0]):]
	} else if table == nil {
		return nil
	}
	table = append(table, body...)
	f.programs[pid] = table
	if len(table) < 3 {
		return nil
	}
	size := 3 + int(big.Uint16(table[1:])&0xfff)
	if size > len(table) {
		if len(table) > maxSection {
			f.programs[pid] = nil
		}
		return nil
	}
	f.programs[pid] = nil
	const checksum = 4
	if size < 12 {
		return nil
	}
	kind, content := table[0], table[8:size-checksum]
	switch {
	case pid == 0 && kind == 0:
		for ; len(content) >= 4; content = content[4:] {
			program := big.Uint16(content[2:]) & 0x1fff
			if _, known := f.programs[program]; !known && big.Uint16(content) != 0 && len(f.programs) < maxPrograms {
				f.programs[program] = nil
			}
		}
	case pid != 0 && kind == 2:
		f.program(content)
	}
	return nil
}

// program reads the table of a program's streams.
func (f *tsFile) program(b []byte) {
	if len(b) < 4 {
		return
	}
	skip := 4 + int(big.Uint16(b[2:])&0xfff)
	for skip <= len(b) && len(b)-skip >= 5 {
		b = b[skip:]
		kind, pid := b[0], big.Uint16(b[1:])&0x1fff
		skip = 5 + int(big.Uint16(b[3:])&0xfff)
		descriptors := b[5:min(skip, len(b))]
		s := &tsStream{counter: -1}
		switch kind {
		case 0x03, 0x04:
			s.frames = newFrames(parseMPEG)
		case 0x0f:
			s.frames = newFrames(parseADTS)
		case 0x11, 0x1c, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87: // measured by the times of their packets
		case 0x06:
			s.private = !tsAudio(descriptors)
		default:
			continue
		}
		if f.streams[pid] == nil && len(f.streams) < maxTSAudio {
			f.streams[pid] = s
		}
	}
}

// tsAudio reports whether descriptors name a codec of audio.
func tsAudio(b []byte) bool {
	for len(b) >= 2 {
		n := int(b[1])
		if n > len(b)-2 {
			return false
		}
		switch b[0] {
		case 0x6a, 0x7a, 0x7b, 0x7c, 0x81: // AC-3, E-AC-3, DTS, AAC, AC-3
			return true
		case 0x05:
			switch string(b[2 : 2+n]) {
			case "Opus", "AC-3", "EAC3", "DTS1", "DTS2", "DTS3", "BSSD":
				return true
			}
		}
		b = b[2+n:]
	}
	return false
}

// packet takes the content of a packet: a part of a longer one, which begins with a header.
func (s *tsStream) packet(b []byte, starts bool) {
	if starts {
		const header = 9
		if len(b) < header || b[0] != 0 || b[1] != 0 || b[2] != 1 {
			s.begun = false
			return
		}
		n := header + int(b[8])
		if n > len(b) {
			return
		}
		if b[7]&0x80 != 0 && b[8] >= 5 {
			s.time(b[header:])
		}
		stream := b[3]
		b, s.begun = b[n:], true
		if s.private && !s.known(stream, b) {
			s.begun = false
			return
		}
	}
	if !s.begun {
		return
	}
	if s.clock.bytes(len(b)); s.frames != nil {
		_, _ = s.frames.Write(b)
	}
}

// known finds out what a private stream is by its first packet: a number that is given to audio, and a frame.
func (s *tsStream) known(stream byte, b []byte) bool {
	if stream&0xe0 != 0xc0 || len(b) < frameHeader {
		return false
	}
	for _, parse := range []parser{parseMPEG, parseADTS} {
		if _, ok := parse(b); ok {
			s.frames, s.private = newFrames(parse), false
			return true
		}
	}
	return false
}

// time takes the time when a packet is to be played.
func (s *tsStream) time(b []byte) {
	pts := int64(b[0]>>1&7)<<30 | int64(b[1])<<22 | int64(b[2]>>1)<<15 | int64(b[3])<<7 | int64(b[4]>>1)
	if s.clock.begun && pts < s.pts-1<<32 {
		s.wraps += 1 << 33
	}
	s.pts = pts
	s.clock.tick(time.Duration(pts+s.wraps) * (time.Second / 10000) / (ptsClock / 10000))
}

func (f *tsFile) end() (time.Duration, error) {
	if len(f.streams) == 0 {
		return 0, errors.New("no stream of audio is in it")
	}
	var most time.Duration
	for _, s := range f.streams {
		if s.private {
			continue
		}
		d := s.clock.length()
		if s.frames != nil {
			var err error
			if d, err = s.frames.end(); err != nil {
				return 0, err
			}
		}
		most = max(most, d)
	}
	return most, nil
}
