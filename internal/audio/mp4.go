// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"bufio"
	"errors"
	"io"
	"math"
	"slices"
	"time"

	"github.com/abema/go-mp4"
)

const (
	// maxBox bounds the boxes that are read as a whole; they have a few entries.
	maxBox    = 1 << 20
	maxTracks = 1 << 10
	// mp4Movie is the box that describes all tracks.
	mp4Movie = "moov"
)

// mp4First are the boxes that a file may begin with. Older recorders leave out the one that says what it is.
var mp4First = []string{"ftyp", "styp", mp4Movie, "mdat", "wide", "free", "skip", "pnot"}

func isMP4(head []byte) bool {
	if len(head) < 12 {
		return false
	}
	first := string(head[4:8])
	return slices.Contains(mp4First, first) && (head[0] == 0 || first == "mdat") // the others are short
}

// mp4Table is the content of a box that may be long, and is read as it is needed.
type mp4Table struct{ at, size uint64 }

// mp4Track is what the boxes of a track say.
type mp4Track struct {
	id    uint32
	audio bool
	scale uint32
	// claimed is the length of the media as the header gives it, edited that of what is to be played of it in the
	// movie's scale, which begins at start.
	claimed, edited, start uint64
	// tables say of the samples how long they are, how large, and in which chunk of the file they stand.
	tables map[string]mp4Table
	// fragments is the length of the samples in the track's fragments that are there.
	fragments uint64
	defaults  mp4Sample
}

// mp4Sample is what holds for a sample of a fragment of which nothing else is said.
type mp4Sample struct{ duration, size uint32 }

// mp4File collects the tracks. The library reads the single boxes; the way through them is walked here, because the
// library makes room for whatever a box claims to hold.
type mp4File struct {
	r      *io.SectionReader
	scale  uint32
	tracks []*mp4Track
	// track is the one of the present trak or traf box, defaults what holds in its traf.
	track    *mp4Track
	defaults mp4Sample
	// moof is where the present fragment begins, base where its data do, next where the last run of it has ended.
	moof, base, next uint64
}

// mp4Parents are the boxes that are entered, and where.
var mp4Parents = map[string]string{
	mp4Movie: "", "mvex": mp4Movie, "trak": mp4Movie, "mdia": "trak", "edts": "trak", "minf": "mdia", "stbl": "minf",
	"moof": "", "traf": "moof",
}

// mp4Duration returns the length of the longest audio track.
func mp4Duration(r *io.SectionReader) (time.Duration, error) {
	f := &mp4File{r: r}
	if err := f.walk("", 0, uint64(r.Size())); err != nil {
		return 0, err
	}
	found := false
	var most time.Duration
	for _, t := range f.tracks {
		if !t.audio {
			continue
		}
		found = true
		d, err := f.duration(t)
		if err != nil {
			return 0, err
		}
		most = max(most, d)
	}
	if !found {
		return 0, errors.New("no audio track is in it")
	}
	return most, nil
}

func (f *mp4File) duration(t *mp4Track) (time.Duration, error) {
	media, err := f.media(t)
	if err != nil {
		return 0, err
	}
	if media+t.fragments < media {
		return 0, damaged("its fragments are longer than can be counted")
	}
	media += t.fragments
	d, err := length(media-min(t.start, media), uint64(t.scale))
	if err != nil || t.fragments > 0 || t.edited == 0 || f.scale == 0 {
		return d, err
	}
	edited, err := length(t.edited, uint64(f.scale))
	return min(d, edited), err
}

// walk reads the boxes from at to end, which are those of parent. What comes behind them and is no box is not read.
func (f *mp4File) walk(parent string, at, end uint64) error {
	for end-at >= mp4.SmallHeaderSize {
		kind, header, size, err := f.header(at, end)
		if err != nil {
			return err
		}
		cut := size > end-at
		if size < header || cut && parent == "" && kind != mp4Movie && kind != "moof" {
			return nil // samples that were cut off, or something behind the last box
		}
		size = min(size, end-at)
		payload := at + header
		if in, enter := mp4Parents[kind]; enter && in == parent {
			if kind == "moof" {
				f.moof, f.next = at, at
			}
			err = f.enter(kind, payload, at+size)
		} else if !cut {
			err = f.leaf(parent, kind, payload, size-header)
		}
		if err != nil {
			return err
		}
		at += size
	}
	return nil
}

// header reads the header of a box, which may not be one.
func (f *mp4File) header(at, end uint64) (kind string, header, size uint64, err error) {
	var b [mp4.LargeHeaderSize]byte
	if _, err := f.r.ReadAt(b[:min(end-at, mp4.LargeHeaderSize)], int64(at)); err != nil {
		return "", 0, 0, err
	}
	kind = string(b[4:8])
	switch size = uint64(big.Uint32(b[:])); size {
	case 0: // to the end
		return kind, mp4.SmallHeaderSize, end - at, nil
	case 1:
		return kind, mp4.LargeHeaderSize, big.Uint64(b[8:]), nil
	}
	return kind, mp4.SmallHeaderSize, size, nil
}

func (f *mp4File) enter(kind string, at, end uint64) error {
	switch kind {
	case "trak":
		if len(f.tracks) == maxTracks {
			return damaged("it has more than %d tracks", maxTracks)
		}
		f.track = &mp4Track{tables: map[string]mp4Table{}}
		f.tracks = append(f.tracks, f.track)
	case "traf":
		f.track = nil
	}
	return f.walk(kind, at, end)
}

// leaf reads the boxes that matter.
func (f *mp4File) leaf(parent, kind string, at, size uint64) error {
	switch parent + "/" + kind {
	case "moov/mvhd":
		var b mp4.Mvhd
		if err := f.read(at, size, &b); err != nil {
			return err
		}
		f.scale = b.Timescale
	case "trak/tkhd":
		var b mp4.Tkhd
		if err := f.read(at, size, &b); err != nil {
			return err
		}
		f.track.id = b.TrackID
	case "edts/elst":
		return f.edits(at, size)
	case "mdia/mdhd":
		var b mp4.Mdhd
		if err := f.read(at, size, &b); err != nil {
			return err
		}
		f.track.scale, f.track.claimed = b.Timescale, b.GetDuration()
		if b.GetVersion() == 0 && f.track.claimed == math.MaxUint32 || f.track.claimed == math.MaxUint64 { // not known
			f.track.claimed = 0
		}
	case "mdia/hdlr":
		var b mp4.Hdlr
		if err := f.read(at, size, &b); err != nil {
			return err
		}
		f.track.audio = string(b.HandlerType[:]) == "soun"
	case "stbl/stts", "stbl/stsc", "stbl/stsz", "stbl/stz2", "stbl/stco", "stbl/co64":
		f.track.tables[kind] = mp4Table{at, size}
	case "mvex/trex":
		var b mp4.Trex
		if err := f.read(at, size, &b); err != nil {
			return err
		}
		if t := f.find(b.TrackID); t != nil {
			t.defaults = mp4Sample{b.DefaultSampleDuration, b.DefaultSampleSize}
		}
	case "traf/tfhd":
		return f.fragment(at, size)
	case "traf/trun":
		if f.track != nil {
			return f.run(at, size)
		}
	}
	return nil
}

// fragment reads the header of a track's part of a fragment.
func (f *mp4File) fragment(at, size uint64) error {
	var b mp4.Tfhd
	if err := f.read(at, size, &b); err != nil {
		return err
	}
	f.base = f.moof
	if b.CheckFlag(mp4.TfhdBaseDataOffsetPresent) {
		f.base = b.BaseDataOffset
		f.next = f.base
	} else if !b.CheckFlag(mp4.TfhdDefaultBaseIsMoof) {
		f.base = f.next
	}
	if f.track = f.find(b.TrackID); f.track == nil {
		return nil
	}
	f.defaults = f.track.defaults
	if b.CheckFlag(mp4.TfhdDefaultSampleDurationPresent) {
		f.defaults.duration = b.DefaultSampleDuration
	}
	if b.CheckFlag(mp4.TfhdDefaultSampleSizePresent) {
		f.defaults.size = b.DefaultSampleSize
	}
	return nil
}

func (f *mp4File) find(id uint32) *mp4Track {
	for _, t := range f.tracks {
		if t.id == id {
			return t
		}
	}
	return nil
}

func (f *mp4File) read(at, size uint64, box mp4.IBox) error {
	if size > maxBox {
		return damaged("box %q has %d bytes", box.GetType().String(), size)
	}
	if _, err := f.r.Seek(int64(at), io.SeekStart); err != nil {
		return err
	}
	if _, err := mp4.Unmarshal(f.r, size, box, mp4.Context{}); err != nil {
		return damaged("box %q: %v", box.GetType().String(), err)
	}
	return nil
}

// edits adds up what is to be played of a track: encoders cut off what they had to add at the beginning and the end.
func (f *mp4File) edits(at, size uint64) error {
	var b mp4.Elst
	if err := f.read(at, size, &b); err != nil {
		return err
	}
	first := true
	for i := range b.Entries {
		start := b.GetMediaTime(i)
		if start < 0 {
			continue // silence before the track begins
		}
		if first {
			f.track.start, first = uint64(start), false
		}
		n := b.GetSegmentDuration(i)
		if f.track.edited+n < n {
			return damaged("its edit list is longer than can be counted")
		}
		f.track.edited += n
	}
	return nil
}

// words reads a table of numbers of 32 bits, which ends when the box does.
type words struct{ in *bufio.Reader }

func (w words) next() (n uint64, ok bool) {
	var b [4]byte
	_, err := io.ReadFull(w.in, b[:])
	return uint64(big.Uint32(b[:])), err == nil
}

// open returns a table behind its version and the word behind that, and the word.
func (f *mp4File) open(t mp4Table) (w words, first uint64) {
	w = words{bufio.NewReader(io.NewSectionReader(f.r, int64(t.at), int64(t.size)))}
	_, _ = w.next() // version and flags
	first, _ = w.next()
	return w, first
}

// mp4Times gives the samples their lengths, one after another.
type mp4Times struct {
	words

	left, each uint64
}

// take returns the length of the next n samples.
func (t *mp4Times) take(n uint64) (total uint64) {
	for n > 0 {
		if t.left == 0 {
			count, _ := t.next()
			each, ok := t.next()
			if !ok {
				return total
			}
			if each > math.MaxInt32 { // it is meant to be negative
				each = 0
			}
			t.left, t.each = count, each
		}
		k := min(n, t.left)
		total += k * t.each
		t.left -= k
		n -= k
	}
	return total
}

// media returns the length of the samples that are in the file; the length that the header claims only if they have
// none.
func (f *mp4File) media(t *mp4Track) (uint64, error) {
	stts, ok := t.tables["stts"]
	if !ok {
		return 0, nil
	}
	w, _ := f.open(stts)
	times := &mp4Times{words: w}
	sizes, one, samples := f.sizes(t)
	chunks, wide := t.tables["stco"], false
	if chunks.size == 0 {
		chunks, wide = t.tables["co64"], true
	}
	offsets, _ := f.open(chunks)
	inChunk, _ := f.open(t.tables["stsc"])
	var total, counted, n uint64
	for chunk, until := uint64(1), uint64(1); samples > 0; chunk++ {
		offset, ok := offsets.next()
		if wide {
			var low uint64
			low, ok = offsets.next()
			offset = offset<<32 | low
		}
		if !ok {
			break
		}
		// An entry holds up to the chunk that the next one begins with.
		if chunk >= until {
			if chunk == 1 {
				_, _ = inChunk.next()
			}
			n, _ = inChunk.next()
			_, _ = inChunk.next()
			if until, ok = inChunk.next(); !ok || until <= chunk {
				until = math.MaxUint64
			}
		}
		k := min(n, samples)
		samples -= k
		fits := f.fit(offset, k, one, sizes)
		counted += fits
		took := times.take(fits)
		if total+took < took {
			return 0, damaged("its samples are longer than can be counted")
		}
		total += took
		times.take(k - fits)
	}
	if total == 0 && counted > 0 {
		return t.claimed, nil
	}
	return total, nil
}

// sizes returns the table of the samples' sizes, or the one that all have, and how many samples there are.
func (f *mp4File) sizes(t *mp4Track) (next func() (uint64, bool), one, samples uint64) {
	if stz2, ok := t.tables["stz2"]; ok {
		w, field := f.open(stz2)
		samples, _ = w.next()
		var have, left uint64
		return func() (size uint64, ok bool) {
			bits := field & 0xff
			if bits != 4 && bits != 8 && bits != 16 {
				return 0, false
			}
			for have < bits {
				b, err := w.in.ReadByte()
				if err != nil {
					return 0, false
				}
				have, left = have+8, left<<8|uint64(b)
			}
			have -= bits
			return left >> have & (1<<bits - 1), true
		}, 0, samples
	}
	w, one := f.open(t.tables["stsz"])
	samples, _ = w.next()
	return w.next, one, samples
}

// fit returns how many of the next n samples, which stand one behind the other at an offset, are in the file.
func (f *mp4File) fit(offset, n, one uint64, sizes func() (uint64, bool)) (fits uint64) {
	end := uint64(f.r.Size())
	if one > 0 {
		return min(n, (end-min(offset, end))/one)
	}
	for i := range n {
		size, ok := sizes()
		if !ok {
			return fits
		}
		if offset = saturated(offset, size); offset <= end && fits == i {
			fits++
		}
	}
	return fits
}

func saturated(a, b uint64) uint64 {
	if a+b < a {
		return math.MaxUint64
	}
	return a + b
}

// Flags of a trun box: which fields it and each of its samples have.
const (
	runOffset, runFirstFlags                                   = 0x1, 0x4
	runDuration, runSampleSize, runSampleFlags, runComposition = 0x100, 0x200, 0x400, 0x800
)

// run adds the samples of a trun box that are in the file. Read here, because such a box can claim 4 billion samples of
// no size at all.
func (f *mp4File) run(at, size uint64) error {
	w := words{bufio.NewReader(io.NewSectionReader(f.r, int64(at), int64(size)))}
	head, _ := w.next()
	flags := uint32(head & 0xffffff)
	count, _ := w.next()
	offset := f.next
	if flags&runOffset != 0 {
		by, _ := w.next()
		offset = f.base + uint64(int64(int32(by)))
	}
	if flags&runFirstFlags != 0 {
		_, _ = w.next()
	}
	end := uint64(f.r.Size())
	var total uint64
	if flags&(runDuration|runSampleSize|runSampleFlags|runComposition) == 0 {
		if one := uint64(f.defaults.size); one > 0 {
			total = min(count, (end-min(offset, end))/one) * uint64(f.defaults.duration)
			offset = saturated(offset, count*one)
		}
		count = 0
	}
	for range count {
		sample := f.defaults
		ok := true
		for _, field := range [...]struct {
			flag uint32
			into *uint32
		}{
			{runDuration, &sample.duration}, {runSampleSize, &sample.size},
			{runSampleFlags, new(uint32)}, {runComposition, new(uint32)},
		} {
			if flags&field.flag != 0 {
				var v uint64
				if v, ok = w.next(); !ok {
					break
				}
				*field.into = uint32(v)
			}
		}
		if offset = saturated(offset, uint64(sample.size)); !ok || offset > end {
			break
		}
		if sample.size > 0 {
			total += uint64(sample.duration)
		}
	}
	f.next = offset
	if f.track.fragments+total < total {
		return damaged("its fragments are longer than can be counted")
	}
	f.track.fragments += total
	return nil
}
