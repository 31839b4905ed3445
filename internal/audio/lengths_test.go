// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"bytes"
	"encoding/binary"
	"flag"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// write is where the files of the table are written, for testdata/decoded.sh to tell what a decoder finds in them.
var write = flag.String("write", "", "write the files of TestLengths into this folder")

// near is how far a length may be from what a decoder finds: a frame, since decoders differ in what they make of the
// first and the last one.
const near = 30

// noise are bytes that are no audio, the same ones each time.
func noise(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func joined(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// patched is b with other bytes at a place, which counts from the end where it is negative.
func patched(b []byte, at int, with ...byte) []byte {
	b = bytes.Clone(b)
	if at < 0 {
		at += len(b)
	}
	copy(b[at:], with)
	return b
}

// at is where a mark stands in b, and behind it so many bytes.
func at(tb testing.TB, b []byte, mark string, behind int) int {
	tb.Helper()
	n := bytes.Index(b, []byte(mark))
	if n < 0 {
		tb.Fatalf("no %q", mark)
	}
	return n + behind
}

// half is the first half of a file.
func half(b []byte) []byte { return b[:len(b)/2] }

// Tags.
var (
	tagID3v1 = append([]byte("TAGA title"), make([]byte, 118)...)
	tagID3v2 = joined([]byte("ID3\x04\x00\x00\x00\x00\x02\x00"), make([]byte, 256))
	tagAPE   = joined([]byte("APETAGEX\xd0\x07\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80"),
		make([]byte, 8),
		[]byte("APETAGEX\xd0\x07\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80"), make([]byte, 8))
)

// silence is a WAV whose samples are all 0, sound one whose samples are noise, with the sizes that its headers claim.
func silence(riff, data uint32) []byte { return wavFile(riff, data, 9872) }

func sound(riff, data uint32) []byte {
	b := wavFile(riff, data, 0)
	return append(b, noise(2*9872)...)
}

// wavOf is a file with such a format.
func wavOf(format, samples []byte, behind ...byte) []byte {
	chunk := func(id string, b []byte) []byte {
		return joined([]byte(id), binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b)
	}
	body := joined([]byte("WAVE"), chunk("fmt ", format), chunk("data", samples), behind)
	return joined([]byte("RIFF"), binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body)
}

// pages calls f with each page of an Ogg file and mends its checksum.
func pages(b []byte, f func(i int, page []byte)) []byte {
	b = bytes.Clone(b)
	for i, at := 0, 0; at < len(b); i++ {
		page := b[at : at+pageSize(b[at:])]
		f(i, page)
		binary.LittleEndian.PutUint32(page[22:], crc32Ogg(page))
		at += len(page)
	}
	return b
}

// later is an Ogg file that was cut out of a stream which had begun long before.
func later(b []byte) []byte {
	return pages(b, func(i int, page []byte) {
		if granule := binary.LittleEndian.Uint64(page[6:]); granule > 0 {
			binary.LittleEndian.PutUint64(page[6:], granule+1e9)
		}
	})
}

// lastGranule is an Ogg file whose last page claims that position.
func lastGranule(b []byte, granule uint64) []byte {
	return pages(b, func(i int, page []byte) {
		if page[5]&oggLast != 0 {
			binary.LittleEndian.PutUint64(page[6:], granule)
		}
	})
}

// withoutGranules is an Ogg file whose pages say no position.
func withoutGranules(b []byte) []byte {
	return pages(b, func(i int, page []byte) {
		if i > 1 {
			binary.LittleEndian.PutUint64(page[6:], 1<<64-1)
		}
	})
}

// withBox is an M4A whose only box of a kind is another one, in boxes that have the size for it. They stand behind the
// audio.
func withBox(tb testing.TB, b []byte, kind string, other []byte, parents ...string) []byte {
	tb.Helper()
	old := at(tb, b, kind, -4)
	size := int(binary.BigEndian.Uint32(b[old:]))
	out := joined(b[:old], other, b[old+size:])
	for _, parent := range append(parents, "moov", "trak", "mdia") {
		p := at(tb, out, parent, -4)
		binary.BigEndian.PutUint32(out[p:], binary.BigEndian.Uint32(out[p:])+uint32(len(other)-size))
	}
	return out
}

// longHeader is an M4A whose header of the media has numbers of 64 bits, and claims that duration.
func longHeader(tb testing.TB, b []byte, duration uint64) []byte {
	tb.Helper()
	scale := at(tb, b, "mdhd", 16)
	return withBox(tb, b, "mdhd",
		box("mdhd", be32(1<<24, 0, 0, 0, 0), b[scale:scale+4], binary.BigEndian.AppendUint64(nil, duration),
			be32(0x55c40000)))
}

// longOffsets is an M4A whose offsets have 64 bits.
func longOffsets(tb testing.TB, b []byte) []byte {
	tb.Helper()
	offsets := at(tb, b, "stco", 12)
	n := binary.BigEndian.Uint32(b[offsets-4:])
	wide := be32(0, n)
	for i := range int(n) {
		wide = append(wide, be32(0, binary.BigEndian.Uint32(b[offsets+4*i:]))...)
	}
	return withBox(tb, b, "stco", box("co64", wide), "minf", "stbl")
}

// shortSizes is an M4A whose table of sizes has 16 bits each.
func shortSizes(tb testing.TB, b []byte) []byte {
	tb.Helper()
	sizes := at(tb, b, "stsz", 16)
	n := binary.BigEndian.Uint32(b[sizes-4:])
	short := be32(0, 16, n)
	for i := range int(n) {
		short = binary.BigEndian.AppendUint16(short, uint16(binary.BigEndian.Uint32(b[sizes+4*i:])))
	}
	return withBox(tb, b, "stsz", box("stz2", short), "minf", "stbl")
}

// cafOfAAC stores the frames of an ADTS file as Apple's recorder does. The table of the packets claims to have so many
// more.
func cafOfAAC(adts []byte, more uint64) []byte {
	var data, table []byte
	var n uint64
	for len(adts) > 0 {
		f, _ := parseADTS(adts)
		data = append(data, adts[7:f.size]...)
		size := f.size - 7
		if size >= 128 {
			table = append(table, 0x80|byte(size>>7))
		}
		table = append(table, byte(size&127))
		adts = adts[f.size:]
		n++
	}
	chunk := func(id string, b []byte) []byte {
		return joined([]byte(id), binary.BigEndian.AppendUint64(nil, uint64(len(b))), b)
	}
	be64 := binary.BigEndian.AppendUint64
	desc := joined(be64(nil, 0x40d5888000000000), []byte("aac "), be32(2, 0, 1024, 1, 0))
	pakt := joined(be64(nil, n+more), be64(nil, (n+more)*1024), be32(0, 0), table)
	cookie := []byte("\x03\x80\x80\x80\x22\x00\x00\x00\x04\x80\x80\x80\x14\x40\x15\x00\x00\x00\x00" +
		"\x00\x00\x00\x00\x00\x00\x00\x05\x80\x80\x80\x02\x13\x88\x06\x80\x80\x80\x01\x02")
	return joined([]byte("caff\x00\x01\x00\x00"), chunk("desc", desc), chunk("kuki", cookie), chunk("pakt", pakt),
		chunk("data", append(be32(0), data...)))
}

// longPackets is a transport stream with a correction of errors behind each packet.
func longPackets(b []byte) (out []byte) {
	for ; len(b) >= tsPacket; b = b[tsPacket:] {
		out = append(append(out, b[:tsPacket]...), make([]byte, 16)...)
	}
	return out
}

// twice is a transport stream whose packets are all sent twice, as they may be.
func twice(b []byte) (out []byte) {
	for ; len(b) >= tsPacket; b = b[tsPacket:] {
		out = append(append(out, b[:tsPacket]...), b[:tsPacket]...)
	}
	return out
}

// lengthCase is a file, and how long it is.
type lengthCase struct {
	data []byte
	want int // in milliseconds
	// decoder is what ffmpeg 7.1 decodes, -1 for nothing; why says why that is another length.
	decoder int
	why     string
}

func lengthCases(tb testing.TB) map[string]lengthCase {
	tb.Helper()
	file := func(name string) []byte { return testdata(tb, name) }
	pcm16 := []byte("\x01\x00\x01\x00\x40\x1f\x00\x00\x80\x3e\x00\x00\x02\x00\x10\x00")
	pcm8 := []byte("\x01\x00\x01\x00\x40\x1f\x00\x00\x40\x1f\x00\x00\x01\x00\x08\x00")
	noAlign := []byte("\x01\x00\x01\x00\x40\x1f\x00\x00\x80\x3e\x00\x00\x00\x00\x10\x00")
	yamaha := []byte("\x20\x00\x01\x00\x40\x1f\x00\x00\x00\x01\x00\x00\x00\x04\x04\x00")
	extensible := joined(
		[]byte("\xfe\xff\x02\x00\x40\x1f\x00\x00\x80\xbb\x00\x00\x06\x00\x18\x00\x16\x00\x18\x00\x03\x00\x00\x00"),
		[]byte("\x01\x00\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"))
	list := []byte("LIST\x0c\x00\x00\x00INFOISFT\x00\x00\x00\x00")
	untagged, vbr, mpeg2 := file("untagged.mp3"), file("vbr.mp3"), file("mpeg2.mp3")
	xing := at(tb, vbr, "Xing", 8)
	flac, flacPipe := file("tone.flac"), file("pipe.flac")
	m4a, fast, fragmented := file("aac.m4a"), file("faststart.m4a"), file("fragmented.mp4")
	mdhd := at(tb, m4a, "mdhd", 20)
	mdat := at(tb, m4a, "mdat", -4)
	opusFile, vorbisFile := file("pages.opus"), file("pages.ogg")
	webm, live := file("opus.webm"), file("live.webm")
	adts, narrow, aiff, aacTS := file("adts.aac"), file("narrow.amr"), file("pcm.aiff"), file("aac.ts")
	comm, ssnd := at(tb, aiff, "COMM", 8), at(tb, aiff, "SSND", 4)
	caf, wma := file("pcm.caf"), file("two.wma")
	wide := []byte("#!AMR-WB\n")
	for i := range 50 {
		wide = joined(wide, []byte{0x04}, noise(17 + 50)[i:i+17])
	}
	return map[string]lengthCase{
		"wav-never-patched.wav":         {sound(36, 0), 1234, 1234, ""},
		"wav-never-patched-silence.wav": {silence(36, 0), 1234, 1234, ""},
		"wav-zero-sizes.wav":            {sound(0, 0), 1234, 1234, ""},
		"wav-pipe.wav":                  {sound(1<<32-1, 1<<32-1), 1234, 1234, ""},
		"wav-sizes-beyond.wav":          {sound(1<<31, 1<<31-40), 1234, 1234, ""},
		"wav-riff-size-only.wav":        {sound(52+2*9872, 0), 1234, 1234, ""},
		"wav-goes-on.wav": {append(sound(52+8000, 8000), noise(20000)...), 2484, 500,
			"it believes the sizes"},
		"wav-noise-behind.wav":   {append(sound(52+2*9872, 2*9872), noise(5000)...), 1234, 1234, ""},
		"wav-odd-padded.wav":     {wavOf(pcm8, noise(9871), append([]byte{0}, list...)...), 1234, 1234, ""},
		"wav-odd-not-padded.wav": {wavOf(pcm8, noise(9871), list...), 1234, 1234, ""},
		"wav-zeros-behind.wav":   {append(sound(52+2*9872, 2*9872), make([]byte, 30000)...), 1234, 1234, ""},
		"wav-id3v1-behind.wav":   {append(sound(36, 0), tagID3v1...), 1234, 1242, ""},
		"wav-id3v2-before.wav":   {append(bytes.Clone(tagID3v2), sound(36, 0)...), 1234, 1234, ""},
		"wav-line-behind.wav":    {append(sound(52+2*9872, 2*9872), "\r\n--boundary--\r\n"...), 1234, 1234, ""},
		"wav-half.wav":           {half(sound(52+2*9872, 2*9872)), 615, 615, ""},
		"wav-no-align.wav":       {wavOf(noAlign, noise(2*9872)), 1234, 1234, ""},
		"wav-extensible24.wav":   {wavOf(extensible, noise(6*9872)), 1234, 1234, ""},
		"wav-list-behind.wav":    {wavOf(pcm16, noise(2*9872), list...), 1234, 1234, ""},
		"wav-rf64-beyond.wav":    {patched(file("rf64.wav"), 28, 0xff, 0xff, 0xff, 0xff, 0xff), 1234, 1234, ""},
		"wav-adpcm-fact-10h.wav": {
			patched(file("adpcm.wav"), at(tb, file("adpcm.wav"), "fact", 8), 0, 0, 0x2c, 0x11), 1276, 1276, ""},
		"wav-adpcm-half.wav": {half(file("adpcm.wav")), 626, 625, ""},
		"wav-msadpcm.wav":    {file("msadpcm.wav"), 1273, 1273, ""},
		"wav-mp3.wav":        {file("mp3.wav"), 1440, 1440, ""},
		"wav-mp3-fact-10h.wav": {
			patched(file("mp3.wav"), at(tb, file("mp3.wav"), "fact", 8), 0, 0, 0x2c, 0x11), 1440, 1440, ""},
		"wav-gsm.wav":            {file("gsm.wav"), 1234, 1240, ""},
		"mp3-within-a-frame.mp3": {untagged[100:], 1254, 1254, ""},
		"mp3-zeros-before.mp3":   {append(make([]byte, 20000), untagged...), 1280, 1280, ""},
		"mp3-noise-before.mp3":   {append(noise(3000), untagged...), 1280, 1280, ""},
		"mp3-two-id3v2.mp3":      {joined(tagID3v2, tagID3v2, vbr), 1234, 1234, ""},
		"mp3-tags-behind.mp3":    {joined(vbr, tagAPE, tagID3v1), 1234, 1234, ""},
		"mp3-id3v2-too-long.mp3": {joined([]byte("ID3\x03\x00\x00\x01\x00\x00\x00"), untagged), 1280, -1,
			"it believes the tag"},
		"mp3-xing-too-many.mp3": {patched(vbr, xing, 0, 0x10, 0, 0), 1267, 1255, ""},
		"mp3-xing-too-few.mp3":  {patched(vbr, xing, 0, 0, 0, 1), 1234, 1255, ""},
		"mp3-vbri-wrong.mp3": {patched(untagged, 36,
			[]byte("VBRI\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x7f\xff\xff\xff")...), 1254, 1254, ""},
		"mp3-half.mp3":            {half(vbr), 536, 550, ""},
		"mp3-last-frame-cut.mp3":  {vbr[:len(vbr)-20], 1234, 1234, ""},
		"mp3-joined.mp3":          {joined(untagged, tagID3v2, untagged), 2560, 2534, ""},
		"mp3-zeros-behind.mp3":    {append(bytes.Clone(untagged), make([]byte, 5000)...), 1280, 1280, ""},
		"mp3-hole.mp3":            {joined(untagged[:2500], make([]byte, 700), untagged[3200:]), 1097, 1071, ""},
		"mp3-mpeg2-within.mp3":    {mpeg2[500:], 1280, 1280, ""},
		"flac-half.flac":          {half(flac), 512, 512, ""},
		"flac-total-1s.flac":      {patched(flac, 21, flac[21]&0xf0, 0, 0, 0x1f, 0x40), 1234, 1234, ""},
		"flac-total-0.flac":       {patched(flac, 21, flac[21]&0xf0, 0, 0, 0, 0), 1234, 1234, ""},
		"flac-total-huge.flac":    {patched(flac, 21, flac[21]|0x0f, 0xff, 0xff, 0xff, 0xff), 1234, 1234, ""},
		"flac-pipe-last-cut.flac": {flacPipe[:len(flacPipe)-100], 1024, 1024, ""},
		"flac-pipe-id3v1.flac":    {joined(flacPipe, tagID3v1), 1234, 1234, ""},
		"flac-tags-around.flac":   {joined(tagID3v2, flacPipe, tagAPE, tagID3v1), 1234, 1234, ""},
		"flac-damaged.flac":       {patched(flac, 3000, 1, 2, 3, 4), 722, 722, ""},
		"flac-zeros-behind.flac":  {joined(flac, make([]byte, 3000)), 1234, 1234, ""},
		"flac-noise-behind.flac":  {joined(flac, noise(300)), 1234, 1234, ""},
		"mp4-id3v1-behind.m4a":    {joined(m4a, tagID3v1), 1234, 1254, ""},
		"mp4-noise-behind.m4a":    {joined(m4a, noise(300)), 1234, 1254, ""},
		"mp4-line-behind.m4a":     {joined(m4a, []byte("\r\n")), 1234, 1254, ""},
		"mp4-mdhd-0.m4a":          {patched(m4a, mdhd, 0, 0, 0, 0), 1234, 1254, ""},
		"mp4-mdhd-ones.m4a":       {patched(m4a, mdhd, 0xff, 0xff, 0xff, 0xff), 1234, 1254, ""},
		"mp4-mdhd-24h.m4a":        {patched(m4a, mdhd, 0xe3, 0x1d, 0x68, 0), 1234, 1254, ""},
		"mp4-mdhd-long-0.m4a":     {longHeader(tb, m4a, 0), 1234, 1254, ""},
		"mp4-mdhd-long-ones.m4a":  {longHeader(tb, m4a, 1<<64-1), 1234, 1254, ""},
		"mp4-elst-24h.m4a":        {patched(m4a, at(tb, m4a, "elst", 12), 0x05, 0x26, 0x5c, 0), 1234, 1254, ""},
		"mp4-mdat-64.m4a": {joined(m4a[:mdat-8], be32(1), []byte("mdat"), be32(0),
			be32(binary.BigEndian.Uint32(m4a[mdat:])+8), m4a[mdat+8:]), 1234, 1254, ""},
		"mp4-mdat-0.m4a":         {patched(fast, at(tb, fast, "mdat", -4), 0, 0, 0, 0), 1234, 1254, ""},
		"mp4-mdat-beyond.m4a":    {patched(fast, at(tb, fast, "mdat", -4), 0x7f, 0, 0, 0), 1234, 1254, ""},
		"mp4-half.m4a":           {fast[:(at(tb, fast, "mdat", 0)+len(fast))/2], 557, 557, ""},
		"mp4-fragments-half.mp4": {half(fragmented), 488, 488, ""},
		"mp4-fragments-tag.mp4":  {joined(fragmented, tagID3v1), 1257, 1277, ""},
		"mp4-pcm.mov":            {file("pcm.mov"), 1234, 1234, ""},
		"mp4-pcm-no-ftyp.mov":    {file("pcm.mov")[20:], 1234, 1234, ""},
		"mp4-ima4.mov":           {file("ima4.mov"), 1240, 1240, ""},
		"mp4-alac.m4a":           {file("alac.m4a"), 1234, 1234, ""},
		"mp4-opus.mp4":           {file("opus.mp4"), 1234, 1254, ""},
		"mp4-mp3.mp4":            {file("mp3.mp4"), 1234, 1256, ""},
		"mp4-amr.3gp":            {file("amr.3gp"), 1240, 1240, ""},
		"ogg-opus-half.opus":     {half(opusFile), 394, 394, ""},
		"ogg-opus-later.opus":    {later(opusFile), 1234, 1234, ""},
		"ogg-opus-no-granules.opus": {withoutGranules(opusFile), 1254, -1,
			"it believes that there are no positions"},
		"ogg-opus-last-huge.opus":     {lastGranule(opusFile, 1<<40), 1254, 1254, ""},
		"ogg-opus-hole.opus":          {patched(opusFile, len(opusFile)/2, 1, 2, 3, 4, 5, 6), 1034, 1034, ""},
		"ogg-vorbis-hole.ogg":         {patched(vorbisFile, -2000, 1, 2, 3, 4, 5, 6), 1025, 1025, ""},
		"ogg-vorbis-noise-behind.ogg": {joined(vorbisFile, noise(500)), 1234, 1234, ""},
		"ogg-opus-chained.opus":       {joined(opusFile, opusFile), 2468, 2475, ""},
		"ogg-opus-tag.opus":           {joined(opusFile, tagID3v1), 1234, 1234, ""},
		"ogg-vorbis-cut.ogg":          {vorbisFile[:len(vorbisFile)-1000], 826, 826, ""},
		"ogg-vorbis-later.ogg":        {later(vorbisFile), 1234, 1234, ""},
		"ogg-vorbis-last-huge.ogg":    {lastGranule(vorbisFile, 1<<40), 1244, 1244, ""},
		"ogg-speex-last-huge.ogg":     {lastGranule(file("speex.ogg"), 1<<40), 1235, 1240, ""},
		"webm-opus.webm":              {webm, 1234, 1234, ""},
		"webm-live.webm":              {live, 1234, 1234, ""},
		"webm-pipe.webm":              {file("pipe.webm"), 1234, 1234, ""},
		"mkv-pcm-half.mkv":            {half(file("pcm.mkv")), 512, 512, ""},
		"mkv-hole.mkv":                {patched(file("pcm.mkv"), 9000, noise(40)...), 1234, 1234, ""},
		"webm-half.webm":              {half(live), 434, 434, ""},
		"webm-duration-10h.webm": {
			patched(webm, at(tb, webm, "\x44\x89\x88", 3), 0x41, 0x81, 0x2a, 0x88, 0, 0, 0, 0), 1234, 1234, ""},
		"webm-joined.webm":       {joined(live, live), 2468, 2475, ""},
		"webm-tag.webm":          {joined(live, tagID3v1), 1234, 1234, ""},
		"webm-video.webm":        {file("video.webm"), 1234, 1234, ""},
		"webm-vorbis.webm":       {file("vorbis.webm"), 1244, 1244, ""},
		"mkv-aac.mkv":            {file("aac.mkv"), 1300, 1300, ""},
		"mkv-mp3.mkv":            {file("mp3.mkv"), 1284, 1284, ""},
		"mkv-flac.mkv":           {file("flac.mkv"), 1234, 1234, ""},
		"mkv-pcm.mkv":            {file("pcm.mkv"), 1234, 1234, ""},
		"mkv-ac3.mkv":            {file("ac3.mkv"), 1248, 1248, ""},
		"mkv-eac3.mkv":           {file("eac3.mkv"), 1248, 1248, ""},
		"mkv-alac.mkv":           {file("alac.mkv"), 1234, 1234, ""},
		"mkv-laced-xiph.mka":     {file("xiph.mka"), 1306, 1306, ""},
		"mkv-laced-ebml.mka":     {file("ebml.mka"), 1280, 1280, ""},
		"aac.aac":                {adts, 1300, 1300, ""},
		"aac-half.aac":           {half(adts), 604, 604, ""},
		"aac-id3-before.aac":     {joined(tagID3v2, adts), 1300, 1300, ""},
		"aac-within-a-frame.aac": {adts[50:], 1254, 1254, ""},
		"aac-noise-before.aac":   {joined(noise(2000), adts), 1300, 1300, ""},
		"aac-id3v1-behind.aac":   {joined(adts, tagID3v1), 1300, 1300, ""},
		"amr-narrow.amr":         {narrow, 1240, 1240, ""},
		"amr-half.amr":           {half(narrow), 600, 600, ""},
		"amr-wide.awb":           {wide, 1000, 1000, ""},
		"aiff.aiff":              {aiff, 1234, 1234, ""},
		"aiff-never-patched.aiff": {patched(patched(patched(aiff, 4, 0, 0, 0, 0), comm+2, 0, 0, 0, 0), ssnd, 0, 0,
			0, 0), 1234, -1, "it believes the sizes"},
		"aiff-beyond.aiff": {patched(patched(aiff, comm+2, 0x7f, 0, 0, 0), ssnd, 0x7f, 0, 0, 0),
			1234, 1234, ""},
		"aiff-comm-1s.aiff": {patched(aiff, comm+2, 0, 0, 0x1f, 0x40), 1234, 1234, ""},
		"aiff-half.aiff":    {half(aiff), 615, 615, ""},
		"aiff-sowt.aifc":    {file("sowt.aifc"), 1234, 1234, ""},
		"aiff-alaw.aifc":    {file("alaw.aifc"), 1234, 1234, ""},
		"caf-pcm.caf":       {caf, 1234, 1234, ""},
		"caf-unknown.caf": {
			patched(caf, at(tb, caf, "data", 4), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), 1234, 1234, ""},
		"caf-beyond.caf":          {patched(caf, at(tb, caf, "data", 4), 0, 1), 1234, 1234, ""},
		"caf-half.caf":            {half(caf), 614, 614, ""},
		"caf-ima4.caf":            {file("ima4.caf"), 1240, 1240, ""},
		"caf-alac.caf":            {file("alac.caf"), 1234, 1234, ""},
		"caf-opus.caf":            {file("opus.caf"), 1260, 1260, ""},
		"caf-aac.caf":             {cafOfAAC(adts, 0), 1300, 1300, ""},
		"caf-aac-claims-more.caf": {cafOfAAC(adts, 10000), 1300, -1, "it believes the table"},
		"caf-aac-half.caf":        {half(cafOfAAC(adts, 0)), 511, 511, ""},
		"ts-aac.ts":               {aacTS, 1300, 1300, ""},
		"ts-half.ts":              {half(aacTS), 604, 604, ""},
		"ts-within-a-packet.ts":   {aacTS[100:], 1300, 1300, ""},
		"ts-joined.ts":            {joined(aacTS, aacTS), 2601, 2601, ""},
		"ts-mp2.ts":               {file("mp2.ts"), 1248, 1248, ""},
		"ts-ac3.ts":               {file("ac3.ts"), 1248, 1248, ""},
		"ts-opus.ts":              {file("opus.ts"), 1265, 1260, ""},
		"ts-latm.ts":              {file("latm.ts"), 1284, 1300, ""},
		"ts-video.m2ts":           {file("video.m2ts"), 1300, 1300, ""},
		"wma2.wma":                {wma, 1207, 1207, ""},
		"wma1.wma":                {file("one.wma"), 1207, 1207, ""},
		"wma-half.wma":            {half(wma), 835, 836, ""},
		"wma-claims.wma": {patched(wma, at(tb, wma, asfProperties, 64), 0xff, 0xff, 0xff, 0xff, 0xff),
			1207, 1207, ""},
		"flac-zeros-before.flac":     {joined(make([]byte, 5000), flac), 1234, 1234, ""},
		"flac-comment-too-long.flac": {patched(flac, 43, 0x7f), 1234, -1, "it believes the size of the comment"},
		"flac-no-comment-end.flac":   {patched(flac, 42, flac[42]&0x7f), 1234, 1234, ""},
		"mp4-offsets-64.m4a":         {longOffsets(tb, m4a), 1234, 1254, ""},
		"mp4-sizes-16.m4a":           {shortSizes(tb, m4a), 1234, 1254, ""},
		"mp4-stts-negative.m4a": {patched(m4a, at(tb, m4a, "stts", 4+4+16-4), 0xff, 0xff, 0xff, 0x00),
			1234, 1254, ""},
		"mp4-scale-edits-0.m4a": {patched(m4a, at(tb, m4a, "mvhd", 16), 0, 0, 0, 0), 1234, 1254, ""},
		"wav-rf64-never-patched.wav": {patched(patched(file("rf64.wav"), 4, 0, 0, 0, 0), 20, make([]byte, 24)...),
			1234, -1, "it believes the sizes"},
		"wav-zeros-before.wav": {joined(make([]byte, 700), sound(36, 0)), 1234, -1,
			"it looks for the beginning at the first byte only"},
		"mp3-in-the-middle.mp3":     {joined(mpeg2[3000:], vbr), 1959, 1971, ""},
		"mkv-unknown-sizes-cut.mkv": {live[:len(live)-30], 1234, 1234, ""},
		"ogg-opus-later-cut.opus":   {half(later(opusFile)), 394, 394, ""},
		"aac-two-tags.aac":          {joined(tagID3v2, adts, tagAPE), 1300, 1300, ""},
		"aiff-ssnd-zero.aiff":       {patched(aiff, ssnd, 0, 0, 0, 0), 1234, -1, "it believes the sizes"},
		"caf-zero.caf":              {patched(caf, at(tb, caf, "data", 4), make([]byte, 8)...), 1234, 1234, ""},
		"ts-204.ts":                 {longPackets(aacTS), 1300, 1300, ""},
		"ts-packets-twice.ts":       {twice(aacTS), 1300, 789, "it takes the second ones for damage"},
		"wav-yamaha.wav":            {wavOf(yamaha, noise(9872/2)), 1234, 1234, ""},
		"mp4-title-cut.m4a":         {m4a[:len(m4a)-50], 1234, 1254, ""},
	}
}

func TestLengths(t *testing.T) {
	cases := lengthCases(t)
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		tc := cases[name]
		if *write != "" {
			if err := os.WriteFile(filepath.Join(*write, name), tc.data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		t.Run(name, func(t *testing.T) {
			info, err := Read(bytes.NewReader(tc.data), int64(len(tc.data)))
			if want := time.Duration(tc.want) * time.Millisecond; err != nil || info.Duration != want {
				t.Errorf("got %+v, %v; want %s", info, err, want)
			}
			if off := tc.want - tc.decoder; (off < -near || off > near) != (tc.why != "") {
				t.Errorf("%d ms, and a decoder finds %d: why? (%q)", tc.want, tc.decoder, tc.why)
			}
		})
	}
	if len(cases) < 60 {
		t.Errorf("%d cases", len(cases))
	}
}
