// SPDX-License-Identifier: Apache-2.0

// Package audio tells how long the audio in a file is. It reads WAV, MP3, FLAC, Ogg (Vorbis, Opus, FLAC, Speex) and
// MP4/M4A, told apart by their content and not by their names, and decodes nothing unless a file does not say its length.
//
// Files come from strangers: whatever is in them, reading ends with a duration or an error, within a few megabytes of memory.
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
var ErrUnknown = errors.New("not WAV, MP3, FLAC, Ogg or MP4 audio")

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

// headSize is how much of a file is looked at in order to recognise it: enough for a few frames of an MP3.
const headSize = 8 << 10

// MP3 comes last, as it has the weakest mark.
var formats = []format{
	{"WAV", isWAV, wavDuration},
	{"FLAC", hasPrefix("fLaC"), flacDuration},
	{"Ogg", hasPrefix("OggS"), oggDuration},
	{"MP4", isMP4, mp4Duration},
	{"MP3", isMP3, mp3Duration},
}

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
	_, _, err = recognise(f, size)
	return err == nil
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
	found, start, err := recognise(file, size)
	if err != nil {
		return Info{}, err
	}
	d, err := found.duration(io.NewSectionReader(file, start, size-start))
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

// recognise returns the format, and where it begins: ID3 tags stand before FLAC and MP3.
func recognise(file io.ReaderAt, size int64) (format, int64, error) {
	start, err := skipID3(file, size)
	if err != nil {
		return format{}, 0, err
	}
	head := make([]byte, min(headSize, size-start))
	if _, err := io.ReadFull(io.NewSectionReader(file, start, size-start), head); err != nil {
		return format{}, 0, err
	}
	for _, f := range formats {
		if f.is(head) {
			return f, start, nil
		}
	}
	if start > 0 { // With a tag before it, frames may begin anywhere.
		return formats[len(formats)-1], start, nil
	}
	return format{}, 0, ErrUnknown
}

const (
	id3Header    = 10
	id3HasFooter = 0x10
)

// skipID3 returns the offset behind the ID3v2 tags at the beginning of the file.
func skipID3(file io.ReaderAt, size int64) (int64, error) {
	var at int64
	for {
		var h [id3Header]byte
		if at+id3Header > size {
			return at, nil
		}
		if _, err := file.ReadAt(h[:], at); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if string(h[:3]) != "ID3" || h[3] == 0xff || (h[6]|h[7]|h[8]|h[9]) >= 0x80 {
			return at, nil
		}
		length := int64(h[6])<<21 | int64(h[7])<<14 | int64(h[8])<<7 | int64(h[9])
		if h[5]&id3HasFooter != 0 {
			length += id3Header
		}
		if at += id3Header + length; at > size {
			return 0, damaged("its ID3 tag is longer than the file")
		}
	}
}

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

func buffered(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, 64<<10) }

var little, big = binary.LittleEndian, binary.BigEndian
