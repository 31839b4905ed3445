// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

// FuzzRead finds out the format as well.
func FuzzRead(f *testing.F) {
	for _, tc := range lengthCases(f) {
		f.Add(tc.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := read(bytes.NewReader(data), int64(len(data)))
		if err == nil && (info.Duration <= 0 || info.Size != int64(len(data))) {
			t.Errorf("got %+v without an error", info)
		}
	})
}

// fuzz gives files to the reader of one format, whatever they begin with. The seeds are the files whose names begin so.
func fuzz(f *testing.F, duration func(r *io.SectionReader) (time.Duration, error), names ...string) {
	f.Helper()
	seeds := 0
	for name, tc := range lengthCases(f) {
		for _, prefix := range names {
			if strings.HasPrefix(name, prefix) {
				f.Add(tc.data)
				seeds++
			}
		}
	}
	if seeds == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := duration(io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))))
		if err == nil && d < 0 {
			t.Errorf("got %s without an error", d)
		}
	})
}

func FuzzWAV(f *testing.F) { fuzz(f, wavDuration, "wav-") }

func FuzzAIFF(f *testing.F) { fuzz(f, aiffDuration, "aiff") }

func FuzzCAF(f *testing.F) { fuzz(f, cafDuration, "caf-") }

func FuzzFLAC(f *testing.F) { fuzz(f, flacDuration, "flac-") }

func FuzzOgg(f *testing.F) { fuzz(f, oggDuration, "ogg-") }

func FuzzAMR(f *testing.F) { fuzz(f, amrDuration, "amr-") }

func FuzzMP4(f *testing.F) { fuzz(f, mp4Duration, "mp4-") }

func FuzzMatroska(f *testing.F) { fuzz(f, mkvDuration, "mkv-", "webm-") }

func FuzzTS(f *testing.F) { fuzz(f, tsDuration, "ts-") }

func FuzzASF(f *testing.F) { fuzz(f, asfDuration, "wma") }

func FuzzMP3(f *testing.F) { fuzz(f, mp3.duration, "mp3-") }

func FuzzAAC(f *testing.F) { fuzz(f, aac.duration, "aac") }
