// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"bytes"
	"errors"
	"io"
	"strconv"
)

const (
	id3Header    = 10
	id3HasFooter = 0x10
	id3v1        = 128
	apeFooter    = 32
	apeHasHeader = 1 << 31
	lyricsFooter = 15
	// maxTags is how many tags are looked for behind the audio.
	maxTags = 8
)

// id3Size returns how long the ID3v2 tag is that h is the header or the footer of, or 0 if it is none.
func id3Size(h []byte, mark string) int64 {
	if len(h) < id3Header || string(h[:3]) != mark || h[3] == 0xff || h[4] == 0xff || (h[6]|h[7]|h[8]|h[9]) >= 0x80 {
		return 0
	}
	n := id3Header + (int64(h[6])<<21 | int64(h[7])<<14 | int64(h[8])<<7 | int64(h[9]))
	if h[5]&id3HasFooter != 0 {
		n += id3Header
	}
	return n
}

// skipTags returns the offset behind the ID3v2 tags at a place, which is the beginning. One that claims to be longer
// than the file is not skipped: what it holds is searched for audio.
func skipTags(file io.ReaderAt, at, size int64) (int64, error) {
	for {
		var h [id3Header]byte
		if _, err := file.ReadAt(h[:], at); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		n := id3Size(h[:], "ID3")
		if n == 0 || n > size-at {
			return at, nil
		}
		at += n
	}
}

// trimTags returns where the audio ends that begins at start: before the tags of ID3v1, ID3v2, APE and Lyrics3 at the
// end.
func trimTags(file io.ReaderAt, start, size int64) (int64, error) {
	for range maxTags {
		var tail [id3v1]byte
		n := min(id3v1, size-start)
		if _, err := file.ReadAt(tail[id3v1-n:], size-n); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		tag := trailer(tail[:])
		if tag == 0 || tag > size-start {
			return size, nil
		}
		size -= tag
	}
	return size, nil
}

// trailer returns how long the tag is that ends with tail, or 0 if there is none.
func trailer(tail []byte) int64 {
	ape, id3, lyrics := tail[id3v1-apeFooter:], tail[id3v1-id3Header:], tail[id3v1-lyricsFooter:]
	switch {
	case bytes.HasPrefix(tail, []byte("TAG")):
		return id3v1
	case bytes.HasPrefix(ape, []byte("APETAGEX")):
		n := int64(little.Uint32(ape[12:]))
		if little.Uint32(ape[20:])&apeHasHeader != 0 {
			n += apeFooter
		}
		return max(n, apeFooter)
	case bytes.HasSuffix(lyrics, []byte("LYRICS200")):
		if n, err := strconv.ParseUint(string(lyrics[:6]), 10, 32); err == nil {
			return int64(n) + lyricsFooter
		}
	}
	return id3Size(id3, "3DI")
}
