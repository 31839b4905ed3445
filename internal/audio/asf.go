// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"errors"
	"io"
	"time"
)

// No library in Go reads it. What Windows Media's codecs have in a packet is known to nobody else, so the length is
// that of the times at which packets are to be played.

const (
	asfMark       = "\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"
	asfProperties = "\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65"
	asfStream     = "\x91\x07\xdc\xb7\xb7\xa9\xcf\x11\x8e\xe6\x00\xc0\x0c\x20\x53\x65"
	asfAudio      = "\x40\x9e\x69\xf8\x4d\x5b\xcf\x11\xa8\xfd\x00\x80\x5f\x5c\x44\x2b"
	asfData       = "\x36\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"

	asfObject        = 24
	asfHeader        = 30
	asfPropertyBytes = 104
	asfStreamBytes   = 78
	asfDataHeader    = 50
	// maxASFPacket bounds the size of packets, which is the same for all.
	maxASFPacket = 1 << 20
)

type asfFile struct {
	packet  uint32
	streams map[byte]*clock
}

func asfDuration(r *io.SectionReader) (time.Duration, error) {
	f := &asfFile{streams: map[byte]*clock{}}
	for at := int64(0); r.Size()-at >= asfObject; {
		b := make([]byte, min(asfPropertyBytes, r.Size()-at))
		if _, err := r.ReadAt(b, at); err != nil {
			return 0, err
		}
		size := little.Uint64(b[16:])
		switch string(b[:16]) {
		case asfMark: // The header holds the objects that come next.
			size = asfHeader
		case asfProperties:
			if len(b) == asfPropertyBytes {
				f.packet = little.Uint32(b[96:])
			}
		case asfStream:
			if len(b) >= asfStreamBytes && string(b[asfObject:asfObject+16]) == asfAudio {
				f.streams[b[72]&0x7f] = &clock{}
			}
		case asfData:
			return f.duration(io.NewSectionReader(r, at+asfDataHeader, max(r.Size()-at-asfDataHeader, 0)), size)
		}
		if size < asfObject || size > uint64(r.Size()-at) {
			break
		}
		at += int64(size)
	}
	return 0, damaged("it has no samples")
}

// duration goes through the packets. The object that holds them claims to have a size, which is 0 in a recording that
// was not ended.
func (f *asfFile) duration(r *io.SectionReader, size uint64) (time.Duration, error) {
	if f.packet == 0 || f.packet > maxASFPacket {
		return 0, damaged("its packets have %d bytes", f.packet)
	}
	end := r.Size()
	if size > asfDataHeader {
		end = int64(min(size-asfDataHeader, uint64(end)))
	}
	in := buffered(io.NewSectionReader(r, 0, end))
	for b := make([]byte, f.packet); ; {
		n, err := io.ReadFull(in, b)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, err
		}
		if n > 0 {
			f.payloads(b[:n])
		}
		if err != nil {
			break
		}
	}
	if len(f.streams) == 0 {
		return 0, errors.New("no stream of audio is in it")
	}
	var most time.Duration
	for _, c := range f.streams {
		most = max(most, c.total) // of the first packet nothing is heard, since it only prepares the next one
	}
	return most, nil
}

// fields reads numbers one after the other. Beyond the end they are 0, and short is set.
type fields struct {
	b     []byte
	short bool
}

// take reads a number whose size is given by two bits: none, one, two or four bytes.
func (f *fields) take(kind byte) (v uint32) {
	n := [...]int{0, 1, 2, 4}[kind&3]
	if n > len(f.b) {
		f.short, f.b = true, nil
		return 0
	}
	for i := range n {
		v |= uint32(f.b[i]) << (8 * i)
	}
	f.b = f.b[n:]
	return v
}

// skip returns the next bytes.
func (f *fields) skip(n uint32) (b []byte) {
	if uint64(n) > uint64(len(f.b)) {
		f.short, f.b = true, nil
		return nil
	}
	b, f.b = f.b[:n], f.b[n:]
	return b
}

// one is a byte, as take counts.
const one = 1

// payloads reads the parts of samples that are in a packet.
func (f *asfFile) payloads(b []byte) {
	p := &fields{b: b}
	if b[0]&0x80 != 0 { // what corrects errors
		p.skip(1 + uint32(b[0]&15))
	}
	kinds, sizes := byte(p.take(one)), byte(p.take(one))
	length := p.take(kinds >> 5)
	p.take(kinds >> 1)
	padding := p.take(kinds >> 3)
	p.skip(6) // when it is to be sent
	switch {
	case len(b) < int(f.packet): // The last one was cut off.
		padding = 0
	case length > 0 && length < f.packet:
		padding += f.packet - length
	}
	if p.short || uint64(padding) > uint64(len(p.b)) {
		return
	}
	p.b = p.b[:len(p.b)-int(padding)]
	count, kind := byte(1), byte(0)
	if kinds&1 != 0 {
		many := byte(p.take(one))
		count, kind = many&63, many>>6
	}
	for range count {
		stream := byte(p.take(one)) & 0x7f
		p.take(sizes >> 4)
		offset := p.take(sizes >> 2)
		replicated := p.take(sizes)
		head := p.skip(replicated)
		size := uint32(len(p.b))
		if kinds&1 != 0 {
			size = p.take(kind)
		}
		data := p.skip(size)
		if p.short {
			return
		}
		c := f.streams[stream]
		if c == nil {
			continue
		}
		const whole = 8 // the size of the sample, and when it is to be played
		if len(head) >= whole && offset == 0 {
			c.tick(time.Duration(little.Uint32(head[4:])) * time.Millisecond)
		}
		c.bytes(len(data))
	}
}
