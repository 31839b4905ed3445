// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tone is how long the sound in testdata is.
const tone = 1234 * time.Millisecond

func TestRead(t *testing.T) {
	for name, tc := range map[string]struct {
		format string
		want   time.Duration
	}{
		"pipe.wav":    {"WAV", tone},
		"rf64.wav":    {"WAV", tone},
		"vbr.mp3":     {"MP3", tone},
		"tone.flac":   {"FLAC", tone},
		"pipe.flac":   {"FLAC", tone},
		"vorbis.ogg":  {"Ogg", tone},
		"opus.opus":   {"Ogg", tone},
		"flac.oga":    {"Ogg", tone},
		"chained.ogg": {"Ogg", 2 * tone},
		"aac.m4a":     {"MP4", tone},
		"edited.mp4":  {"MP4", tone},
		"video.mp4":   {"MP4", tone}, // its pictures go on for 3 s
		// What an encoder added is counted where the file does not say how much that is.
		"adpcm.wav":      {"WAV", 1276 * time.Millisecond},
		"untagged.mp3":   {"MP3", 1280 * time.Millisecond},
		"mpeg2.mp3":      {"MP3", 1306 * time.Millisecond},
		"mpeg25.mp3":     {"MP3", 1440 * time.Millisecond},
		"layer2.mp2":     {"MP3", 1248 * time.Millisecond},
		"speex.ogg":      {"Ogg", 1235 * time.Millisecond},
		"fragmented.mp4": {"MP4", 1257 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name)
			info, err := ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			stat, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.Format != tc.format || info.Duration != tc.want || info.Size != stat.Size() {
				t.Errorf("got %s, %s, %d bytes; want %s, %s, %d bytes", info.Format, info.Duration, info.Size,
					tc.format, tc.want, stat.Size())
			}
			if !Recognised(path) {
				t.Error("not recognised by its beginning")
			}
		})
	}
}

// testdata returns a file of testdata.
func testdata(tb testing.TB, name string) []byte {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// wavFile is a file of 16-bit mono samples at 8000 Hz, with the sizes that its headers claim.
func wavFile(riff, data uint32, samples int) []byte {
	b := binary.LittleEndian.AppendUint32([]byte("RIFF"), riff)
	b = append(b, "WAVEjunk\x03\x00\x00\x00abc\x00fmt \x10\x00\x00\x00\x01\x00\x01\x00"...)
	b = binary.LittleEndian.AppendUint32(b, 8000)
	b = binary.LittleEndian.AppendUint32(b, 16000)
	b = append(b, "\x02\x00\x10\x00data"...)
	b = binary.LittleEndian.AppendUint32(b, data)
	return append(b, make([]byte, 2*samples)...)
}

func TestVariants(t *testing.T) {
	flac := testdata(t, "tone.flac")
	// The number of samples is in the last 36 bits of these 5 bytes.
	unknown := bytes.Clone(flac)
	copy(unknown[21:26], []byte{unknown[21] & 0xf0, 0, 0, 0, 0})
	mp3 := testdata(t, "vbr.mp3")
	id3 := append([]byte("ID3\x04\x00\x10\x00\x00\x00\x05hello3DI\x04\x00\x10\x00\x00\x00\x05"), flac...)
	for name, tc := range map[string]struct {
		data []byte
		want time.Duration
	}{
		"WAV":                                {wavFile(52+9872*2, 9872*2, 9872), tone},
		"WAV written to a pipe":              {wavFile(1<<32-1, 1<<32-1, 9872), tone},
		"WAV of a recorder that was cut off": {wavFile(0, 0, 9872), tone},
		"WAV that is shorter than it claims": {wavFile(52+99999*2, 99999*2, 9872), tone},
		"WAV with something behind": {
			append(wavFile(52+9872*2, 9872*2, 9872), "LIST\x04\x00\x00\x00INFO"...), tone},
		"FLAC that does not say its length":    {unknown, tone},
		"FLAC behind an ID3 tag with a footer": {id3, tone},
		"MP3 in noise": {
			append([]byte("ID3\x03\x00\x00\x00\x00\x00\x00\xff\xfb\x90\x64 and \xff\xff"), mp3...), tone},
		"MP3 with tags behind": {append(bytes.Clone(mp3), "APETAGEX\xff\xfbTAGtitle"...), tone},
		"MP3 that was joined": {append(bytes.Clone(mp3), testdata(t, "layer2.mp2")...),
			1274*time.Millisecond + 1248*time.Millisecond - 40*time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			info, err := Read(bytes.NewReader(tc.data), int64(len(tc.data)))
			if err != nil || info.Duration != tc.want {
				t.Errorf("got %s, %v; want %s", info.Duration, err, tc.want)
			}
		})
	}
}

// box is an MP4 box.
func box(kind string, content ...[]byte) []byte {
	body := bytes.Join(content, nil)
	return append(append(binary.BigEndian.AppendUint32(nil, uint32(8+len(body))), kind...), body...)
}

func be32(n ...uint32) (b []byte) {
	for _, w := range n {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

func TestFails(t *testing.T) {
	ftyp := box("ftyp", []byte("isom\x00\x00\x00\x00"))
	audioTrack := box("moov", box("trak",
		box("mdia", box("hdlr", be32(0, 0), []byte("soun"), be32(0, 0, 0), []byte{0}))))
	for name, tc := range map[string]struct {
		data []byte
		want string
	}{
		"empty":           {nil, ErrUnknown.Error()},
		"text":            {[]byte("You may say I'm a dreamer"), ErrUnknown.Error()},
		"tag only":        {[]byte("ID3\x03\x00\x00\x00\x00\x00\x00"), "MP3: the file has no audio"},
		"tag too long":    {[]byte("ID3\x03\x00\x00\x7f\x00\x00\x00"), ErrUnknown.Error()},
		"WAV, no samples": {wavFile(0, 0, 0), "WAV: the file has no audio"},
		"WAV, no data":    {wavFile(0, 0, 0)[:48], "has no samples"},
		"WAV, short fmt": {[]byte("RIFF\xff\x00\x00\x00WAVEfmt \x04\x00\x00\x00abcdefghijklmnopqrst"),
			`chunk "fmt " is too short`},
		"WAV, no fmt": {[]byte("RIFF\xff\x00\x00\x00WAVEdata\x04\x00\x00\x00abcd"), "does not say its format"},
		"WAV, no rate": {append([]byte("RIFF\xff\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00"),
			"\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x10\x00data\x02\x00\x00\x00ab"...), "sample rate is 0"},
		"FLAC, picture": {[]byte("fLaC\x06\xff\xff\xff" + strings.Repeat("\xff", 60)),
			"first block is not a STREAMINFO"},
		"FLAC, cut off":      {testdata(t, "tone.flac")[:30], "damaged"},
		"Ogg, first page":    {testdata(t, "vorbis.ogg")[:50], "no stream of Vorbis"},
		"Ogg, no audio":      {testdata(t, "opus.opus")[:47], "the file has no audio"},
		"Ogg, wrong":         {append([]byte("OggSsggO"), make([]byte, 100)...), "no stream of Vorbis"},
		"MP4, no track":      {ftyp, "no audio track"},
		"MP4, nothing in it": {append(bytes.Clone(ftyp), audioTrack...), "sample rate is 0"},
		"MP4, cut off":       {testdata(t, "aac.m4a")[:1000], "no audio track"},
		"MP4, wild box":      {append(bytes.Clone(ftyp), be32(7)...), "no audio track"},
	} {
		t.Run(name, func(t *testing.T) {
			info, err := Read(bytes.NewReader(tc.data), int64(len(tc.data)))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %+v, %v; want an error with %q", info, err, tc.want)
			}
		})
	}
}

// TestBombs reads small files that claim to be enormous.
func TestBombs(t *testing.T) {
	ftyp := box("ftyp", []byte("isom\x00\x00\x00\x00"))
	tkhd := box("tkhd", be32(0, 0, 0, 1, 0, 0), make([]byte, 60))
	hdlr := box("hdlr", be32(0, 0), []byte("soun"), be32(0, 0, 0), []byte{0})
	mdhd := box("mdhd", be32(0, 0, 0, 1000, 0, 0))
	trak := box("trak", tkhd, box("mdia", mdhd, hdlr))
	run := box("trun", be32(0, 1<<32-1)) // 4 billion samples without any size
	for name, data := range map[string][]byte{
		"MP4 samples": bytes.Join([][]byte{ftyp, box("moov", trak, box("mvex", box("trex", be32(0, 1, 1, 1, 0, 0)))),
			box("moof", box("traf", box("tfhd", be32(0, 1)), run))}, nil),
		"MP4 edits": bytes.Join([][]byte{ftyp,
			box("moov", box("trak", tkhd, box("edts", box("elst", be32(0, 1<<32-1))), box("mdia", mdhd, hdlr)))}, nil),
		"MP4 brands": append(be32(1<<31), "ftypisom\x00\x00\x00\x00"...),
		"FLAC block": append([]byte("fLaC\x86\xff\xff\xff"), bytes.Repeat([]byte{0xff}, 100)...),
		"ID3":        []byte("ID3\x03\x00\x00\x7f\x7f\x7f\x7f"),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			info, err := read(bytes.NewReader(data), int64(len(data)))
			runtime.ReadMemStats(&after)
			if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
				t.Errorf("%d bytes were allocated for a file of %d (%+v, %v)", got, len(data), info, err)
			}
		})
	}
}

// TestHostile reads files of megabytes whose every few bytes ask for work: time and memory grow with the file only.
func TestHostile(t *testing.T) {
	const size = 4 << 20
	full := func(head, each []byte) []byte { return append(head, bytes.Repeat(each, (size-len(head))/len(each))...) }
	page := append([]byte("OggS\x00"), make([]byte, 21)...)
	flacHead := testdata(t, "tone.flac")[:42]
	stripped := joined([]byte("\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\xff\x16\x54\xae\x6b\xff"+
		"\xae\xff\xd7\x81\x01\x83\x81\x02\x86\x89A_MPEG/L3"),
		[]byte("\x6d\x80\xff\x62\x40\xff\x50\x34\xff\x42\x54\x81\x03\x42\x55\x23\x00\x00"), make([]byte, 0x30000))
	desc := joined(binary.BigEndian.AppendUint64(nil, 0x40d5888000000000), []byte("aac "), be32(2, 0, 1024, 1, 0))
	packets := joined(be32(0xffff, 0xffffffff), make([]byte, 16))
	for name, data := range map[string][]byte{
		"zeros":          make([]byte, size),
		"zeros and tags": full(nil, []byte("\x00ID3\x04\x00\x00\x00\x00\x00\x00")),
		"tags":           full(nil, []byte("ID3\x04\x00\x00\x00\x00\x00\x00")),
		"ones":           bytes.Repeat([]byte{0xff}, size),
		"Ogg marks":      full(nil, append(page, 0xff)),
		"Ogg pages":      full(nil, append(page, bytes.Repeat([]byte{0xff}, 256)...)),
		"MP4 boxes":      full(box("ftyp", []byte("isom\x00\x00\x00\x00")), box("free")),
		"MP4 movies":     full(box("ftyp", []byte("isom\x00\x00\x00\x00")), box("moov", box("trak"))),
		"WAV chunks":     full([]byte("RIFF\x00\x00\x00\x00WAVE"), []byte("LIST\x00\x00\x00\x00")),
		"AIFF chunks":    full([]byte("FORM\x00\x00\x00\x00AIFF"), []byte("LIST\x00\x00\x00\x00")),
		"CAF packets": full(joined([]byte("caff\x00\x01\x00\x00desc"), be32(0, 32), desc,
			[]byte("data\xff\xff\xff\xff\xff\xff\xff\xff")), packets),
		"FLAC blocks":     full(flacHead, []byte{4, 0, 0, 0}),
		"FLAC frames":     full(flacHead, []byte("\xff\xf8\xc4\x08\x00\x15")),
		"Matroska laces":  full(stripped, []byte("\xa3\x86\x81\x00\x00\x04\xff\x00")),
		"Matroska marks":  full([]byte("\x1a\x45\xdf\xa3\x80"), []byte("\x1f\x43\xb6\x75\xff\x00")),
		"Matroska tracks": full([]byte("\x1a\x45\xdf\xa3\x80"), []byte("\xae\xff\xd7\x84\x01\x02\x03\x04")),
		"MPEG-TS tables":  full(nil, append([]byte("\x47\x40\x00\x10\x00\x00\xb0\xff"), make([]byte, 180)...)),
		"MP3 headers":     full(nil, []byte("\xff\xfb\x90\x64")),
		"AAC headers":     full(nil, []byte("\xff\xf1\x50\x80\x01\x00\xfc")),
		"AMR frames":      full([]byte("#!AMR\n"), []byte{0x3c, 0x78}),
		"ASF objects":     full([]byte(asfMark), append(make([]byte, 14), 24, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			info, err := read(bytes.NewReader(data), int64(len(data)))
			took := time.Since(began)
			runtime.ReadMemStats(&after)
			t.Logf("%s, %d kB: %+v, %v", took, (after.TotalAlloc-before.TotalAlloc)>>10, info, err)
			if took > 5*time.Second {
				t.Errorf("%d bytes took %s", len(data), took)
			}
			if got := after.HeapSys - before.HeapSys; after.HeapSys > before.HeapSys && got > 64<<20 {
				t.Errorf("the heap grew by %d bytes", got)
			}
		})
	}
}

// TestCutOff reads every file cut off at many places: the result is an error or no more than the whole.
func TestCutOff(t *testing.T) {
	files, err := filepath.Glob("testdata/*.*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		data := testdata(t, filepath.Base(path))
		whole, err := read(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			continue
		}
		for n := int64(0); n < int64(len(data)); n += 31 {
			// What an encoder added is taken off at the end, which may say so behind the audio.
			if info, err := read(bytes.NewReader(data), n); err == nil &&
				info.Duration > whole.Duration+near*time.Millisecond {
				t.Errorf("%s: %s in the first %d bytes, %s in all %d", path, info.Duration, n,
					whole.Duration, len(data))
			}
		}
	}
}

func TestReadFileThatIsNone(t *testing.T) {
	folder := t.TempDir()
	pipe := filepath.Join(folder, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{folder, pipe} {
		if _, err := ReadFile(path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: got %v", path, err)
		}
		if Recognised(path) {
			t.Errorf("%s is recognised as audio", path)
		}
	}
	if _, err := ReadFile(filepath.Join(folder, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: got %v", err)
	}
}
