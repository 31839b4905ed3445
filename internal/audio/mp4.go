// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"errors"
	"io"
	"math/bits"
	"time"

	"github.com/abema/go-mp4"
)

const (
	// maxBox bounds the boxes that are read as a whole; they have a few entries.
	maxBox    = 1 << 20
	maxTracks = 1 << 10
)

func isMP4(head []byte) bool { return len(head) >= 12 && string(head[4:8]) == "ftyp" }

// mp4Track is what the boxes of a track say.
type mp4Track struct {
	id    uint32
	audio bool
	scale uint32
	// media is the length of the track's media in its scale, edited the length of what is to be played of it in the movie's.
	media, edited uint64
	// fragments is the length of the samples in the track's fragments, of which skip are not to be played; sample is that of
	// one where the fragment does not say. All in the track's scale.
	fragments, skip uint64
	sample          uint32
}

// mp4File collects the tracks. The library reads the single boxes; the way through them is walked here, because the library
// makes room for whatever a box claims to hold.
type mp4File struct {
	r      *io.SectionReader
	scale  uint32
	tracks []*mp4Track
	// track is the one of the present trak or traf box, sample the length that its traf gives samples.
	track  *mp4Track
	sample uint32
}

// mp4Parents are the boxes that are entered, and where.
var mp4Parents = map[string]string{
	"moov": "", "mvex": "moov", "trak": "moov", "mdia": "trak", "edts": "trak", "moof": "", "traf": "moof",
}

// mp4Duration returns the length of the longest audio track.
func mp4Duration(r *io.SectionReader) (time.Duration, error) {
	f := &mp4File{r: r}
	if err := f.walk("", 0, uint64(r.Size())); err != nil {
		return 0, err
	}
	var most time.Duration
	found := false
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
	if t.fragments > 0 {
		return length(t.fragments-min(t.skip, t.fragments), uint64(t.scale))
	}
	if t.edited > 0 {
		return length(t.edited, uint64(f.scale))
	}
	return length(t.media, uint64(t.scale))
}

// walk reads the boxes from at to end, which are those of parent.
func (f *mp4File) walk(parent string, at, end uint64) error {
	for at+mp4.SmallHeaderSize <= end {
		if _, err := f.r.Seek(int64(at), io.SeekStart); err != nil {
			return err
		}
		box, err := mp4.ReadBoxInfo(f.r)
		if err != nil {
			return err
		}
		kind := box.Type.String()
		if box.Size < box.HeaderSize || box.Size > end-at {
			return damaged("box %q at byte %d ends beyond what it is in", kind, at)
		}
		payload, size := at+box.HeaderSize, box.Size-box.HeaderSize
		if in, enter := mp4Parents[kind]; enter && in == parent {
			err = f.enter(kind, payload, at+box.Size)
		} else {
			err = f.leaf(parent, kind, payload, size)
		}
		if err != nil {
			return err
		}
		at += box.Size
	}
	return nil
}

func (f *mp4File) enter(kind string, at, end uint64) error {
	switch kind {
	case "trak":
		if len(f.tracks) == maxTracks {
			return damaged("it has more than %d tracks", maxTracks)
		}
		f.track = &mp4Track{}
		f.tracks = append(f.tracks, f.track)
	case "traf":
		f.track, f.sample = nil, 0
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
		f.track.scale, f.track.media = b.Timescale, b.GetDuration()
	case "mdia/hdlr":
		var b mp4.Hdlr
		if err := f.read(at, size, &b); err != nil {
			return err
		}
		f.track.audio = string(b.HandlerType[:]) == "soun"
	case "mvex/trex":
		var b mp4.Trex
		if err := f.read(at, size, &b); err != nil {
			return err
		}
		if t := f.find(b.TrackID); t != nil {
			t.sample = b.DefaultSampleDuration
		}
	case "traf/tfhd":
		var b mp4.Tfhd
		if err := f.read(at, size, &b); err != nil {
			return err
		}
		if f.track = f.find(b.TrackID); f.track != nil {
			f.sample = f.track.sample
		}
		if b.CheckFlag(mp4.TfhdDefaultSampleDurationPresent) {
			f.sample = b.DefaultSampleDuration
		}
	case "traf/trun":
		if f.track != nil {
			return f.run(at, size)
		}
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
	for i := range b.Entries {
		start := b.GetMediaTime(i)
		if start < 0 {
			continue // silence before the track begins
		}
		n := b.GetSegmentDuration(i)
		if n == 0 { // all of it, in fragments
			f.track.skip = uint64(start)
		}
		if f.track.edited+n < n {
			return damaged("its edit list is longer than can be counted")
		}
		f.track.edited += n
	}
	return nil
}

// Flags of a trun box: which fields it and each of its samples have.
const (
	runOffset, runFirstFlags                                   = 0x1, 0x4
	runDuration, runSampleSize, runSampleFlags, runComposition = 0x100, 0x200, 0x400, 0x800
)

// run adds the samples of a trun box. Read here, because such a box can claim 4 billion samples of no size at all.
func (f *mp4File) run(at, size uint64) error {
	in := buffered(io.NewSectionReader(f.r, int64(at), int64(size)))
	word := func() (uint32, error) {
		var b [4]byte
		_, err := io.ReadFull(in, b[:])
		return big.Uint32(b[:]), err
	}
	flags, err := word()
	if err != nil {
		return err
	}
	count, err := word()
	if err != nil {
		return err
	}
	total := uint64(count) * uint64(f.sample)
	if flags&runDuration != 0 {
		if total, err = explicit(in, flags, count, word); err != nil {
			return err
		}
	}
	if f.track.fragments+total < total {
		return damaged("its fragments are longer than can be counted")
	}
	f.track.fragments += total
	return nil
}

// explicit adds up the durations that the samples of a trun box give.
func explicit(in io.Reader, flags, count uint32, word func() (uint32, error)) (total uint64, err error) {
	before := 4 * bits.OnesCount32(flags&(runOffset|runFirstFlags))
	behind := 4 * bits.OnesCount32(flags&(runSampleSize|runSampleFlags|runComposition))
	if _, err := io.CopyN(io.Discard, in, int64(before)); err != nil {
		return 0, err
	}
	for range count {
		d, err := word()
		if err != nil {
			return 0, err
		}
		total += uint64(d)
		if _, err := io.CopyN(io.Discard, in, int64(behind)); err != nil {
			return 0, err
		}
	}
	return total, nil
}
