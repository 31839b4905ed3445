// SPDX-License-Identifier: Apache-2.0

// Package audio tells how long the audio in a file is. It reads WAV, AIFF, CAF, MP3, AAC (ADTS), FLAC, Ogg (Vorbis,
// Opus, FLAC, Speex), AMR, MP4 and QuickTime, Matroska and WebM, MPEG-TS and ASF (WMA), told apart by their content and
// not by their names.
//
// It counts the audio that is there, from where it begins, and believes what a file says of itself only where that does
// not contradict what is in it. Nothing is decoded: the codecs' packets say how long they are, all but those of a few,
// whose times are taken then.
//
// Files come from strangers: whatever is in them, reading ends with a duration or an error, within a few megabytes of
// memory and a time that grows with the file only.
package audio

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"time"
)

// Info is what a file holds.
type Info struct {
	// Format is a name for people, such as "MP3".
	Format string
	// Duration of the audio, above 0, rounded to whole milliseconds.
	Duration time.Duration
	// Size of the file in bytes.
	Size int64
}

// ErrUnknown is returned for a file that is none of the formats which this package reads.
var ErrUnknown = errors.New("not WAV, AIFF, CAF, MP3, AAC, FLAC, Ogg, AMR, MP4, Matroska, MPEG-TS or ASF audio")

// errDamaged begins the errors of files that contradict themselves.
var errDamaged = errors.New("damaged file")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
}

// format is one kind of file.
type format struct {
	name string
	// is recognises a file by its beginning, which is shorter than headSize only where the file is.
	is func(head []byte) bool
	// duration reads a file from its first byte, unrounded.
	duration func(r *io.SectionReader) (time.Duration, error)
}

// headSize is how much of a file is looked at for the mark of a format.
const headSize = 4 << 10

var formats = []format{
	{"WAV", isWAV, wavDuration},
	{"AIFF", isAIFF, aiffDuration},
	{"CAF", hasPrefix("caff\x00\x01"), cafDuration},
	{"FLAC", hasPrefix(flacMark), flacDuration},
	{"Ogg", hasPrefix(oggMark), oggDuration},
	{"AMR", hasPrefix(amrMark), amrDuration},
	{"Matroska", hasPrefix(mkvMark), mkvDuration},
	{"ASF", hasPrefix(asfMark), asfDuration},
	{"MPEG-TS", isTS, tsDuration},
	{"MP4", isMP4, mp4Duration},
}

// Formats without a mark: they are looked for in a file that is none of the others, and begin where their first frame
// does.
var (
	mp3 = format{"MP3", nil, framesDuration(parseMPEG)}
	aac = format{"AAC", nil, framesDuration(parseADTS)}
)

func hasPrefix(mark string) func([]byte) bool {
	return func(head []byte) bool { return bytes.HasPrefix(head, []byte(mark)) }
}

// ReadFile reads the file at path, which must be a regular one.
func ReadFile(path string) (Info, error) {
	f, size, err := open(path)
	if err != nil {
		return Info{}, err
	}
	defer func() { _ = f.Close() }()
	info, err := Read(f, size)
	if err != nil {
		return Info{}, fmt.Errorf("%s: %w", path, err)
	}
	return info, nil
}

// Recognised reports whether the file at path begins like one that this package reads.
func Recognised(path string) bool {
	f, size, err := open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	found, _, _, err := recognise(f, size)
	return err == nil && found.duration != nil
}

func open(path string) (*os.File, int64, error) {
	stat, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !stat.Mode().IsRegular() { // asked before opening, which blocks on a pipe
		return nil, 0, fmt.Errorf("%s: not a regular file", path)
	}
	f, err := os.Open(path)
	return f, stat.Size(), err
}

// Read reads a file of that many bytes.
func Read(file io.ReaderAt, size int64) (info Info, err error) {
	// The libraries are fuzzed together with this package; this is for what that has not found.
	defer func() {
		if p := recover(); p != nil {
			info, err = Info{}, damaged("%v", p)
		}
	}()
	return read(file, size)
}

func read(file io.ReaderAt, size int64) (Info, error) {
	file = &cache{r: file}
	found, start, end, err := recognise(file, size)
	if err != nil {
		return Info{}, err
	}
	d, err := found.duration(io.NewSectionReader(file, start, end-start))
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = damaged("it ends too early")
	}
	if err != nil {
		return Info{}, fmt.Errorf("%s: %w", found.name, err)
	}
	if d = d.Round(time.Millisecond); d <= 0 {
		return Info{}, fmt.Errorf("%s: the file has no audio", found.name)
	}
	return Info{Format: found.name, Duration: d, Size: size}, nil
}

// recognise returns the format, and where it begins and ends: tags stand before and behind, and zeros before.
func recognise(file io.ReaderAt, size int64) (found format, start, end int64, err error) {
	found, start, end, err = marked(file, 0, size)
	if !errors.Is(err, ErrUnknown) {
		return found, start, end, err
	}
	zeros, err := leadingZeros(io.NewSectionReader(file, start, end-start))
	if err != nil {
		return found, 0, 0, err
	}
	tagged := start > 0
	if start += zeros; zeros > 0 {
		found, from, to, err := marked(file, start, end)
		if !errors.Is(err, ErrUnknown) {
			return found, from, to, err
		}
	}
	found, at, err := unmarked(file, start, end)
	if tagged && errors.Is(err, ErrUnknown) { // With a tag before them, frames may begin anywhere.
		return mp3, start, end, nil
	}
	return found, start + at, end, err
}

// marked returns the format whose mark stands at a place, or ErrUnknown and where it would begin and end.
func marked(file io.ReaderAt, from, size int64) (found format, start, end int64, err error) {
	if start, err = skipTags(file, from, size); err != nil {
		return found, 0, 0, err
	}
	if end, err = trimTags(file, start, size); err != nil {
		return found, 0, 0, err
	}
	head := make([]byte, min(headSize, end-start))
	if _, err := io.ReadFull(io.NewSectionReader(file, start, end-start), head); err != nil {
		return found, 0, 0, err
	}
	for _, f := range formats {
		if f.is(head) {
			return f, start, end, nil
		}
	}
	return found, start, end, ErrUnknown
}

// unmarked finds frames that no mark of their format stands before, and where they begin.
func unmarked(file io.ReaderAt, start, end int64) (found format, at int64, err error) {
	b := make([]byte, min(searched, end-start))
	if _, err := io.ReadFull(io.NewSectionReader(file, start, end-start), b); err != nil {
		return found, 0, err
	}
	mpeg, adts := parser(parseMPEG).find(b), parser(parseADTS).find(b)
	switch {
	case mpeg >= 0 && (adts < 0 || mpeg < adts):
		return mp3, int64(mpeg), nil
	case adts >= 0:
		return aac, int64(adts), nil
	}
	return found, 0, ErrUnknown
}

// leadingZeros returns how many zeros a file begins with, up to a bound.
func leadingZeros(r io.Reader) (n int64, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	for n < maxZeros && err == nil {
		var b byte
		if b, err = in.ReadByte(); err == nil && b != 0 {
			return n, nil
		}
		n++
	}
	if errors.Is(err, io.EOF) { // there is nothing else
		return 0, nil
	}
	return n, err
}

// maxZeros is how many zeros may stand before the audio.
const maxZeros = 64 << 20

// length returns how long n samples take at rate samples a second.
func length(n, rate uint64) (time.Duration, error) {
	if rate == 0 {
		return 0, damaged("its sample rate is 0")
	}
	hi, lo := bits.Mul64(n, uint64(time.Second))
	if hi >= rate {
		return 0, damaged("it claims %d samples at %d Hz", n, rate)
	}
	d, _ := bits.Div64(hi, lo, rate)
	if d > math.MaxInt64 {
		return 0, damaged("it claims %d samples at %d Hz", n, rate)
	}
	return time.Duration(d), nil
}

// add returns the sum of two durations that are not negative.
func add(a, b time.Duration) (time.Duration, error) {
	if a > math.MaxInt64-b {
		return 0, damaged("it claims to be longer than can be counted")
	}
	return a + b, nil
}

// cache keeps what is around the last place that was read, for those who go through a file in small steps.
type cache struct {
	r   io.ReaderAt
	buf [64 << 10]byte
	at  int64
	n   int
}

// ReadAt reads a small piece from what is kept, or keeps what is there.
func (c *cache) ReadAt(p []byte, at int64) (int, error) {
	const small = 512
	if len(p) > small || at < 0 {
		return c.r.ReadAt(p, at)
	}
	if at < c.at || at+int64(len(p)) > c.at+int64(c.n) {
		n, err := c.r.ReadAt(c.buf[:], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		c.at, c.n = at, n
	}
	n := copy(p, c.buf[at-c.at:c.n])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

var little, big = binary.LittleEndian, binary.BigEndian
