// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/bits"
	"strings"
	"time"
)

// Read here and not by a library: those that can be had read the media into memory, or as much of it as an element
// claims to hold, and end at the first damage.

// The elements that matter. Each has a number of its own wherever it stands.
const (
	mkvEBML           = 0x1a45dfa3
	mkvSegment        = 0x18538067
	mkvInfo           = 0x1549a966
	mkvTimestampScale = 0x2ad7b1
	mkvTracks         = 0x1654ae6b
	mkvTrackEntry     = 0xae
	mkvTrackNumber    = 0xd7
	mkvTrackType      = 0x83
	mkvCodecID        = 0x86
	mkvCodecPrivate   = 0x63a2
	mkvCodecDelay     = 0x56aa
	mkvAudio          = 0xe1
	mkvRate           = 0xb5
	mkvChannels       = 0x9f
	mkvBitDepth       = 0x6264
	mkvEncodings      = 0x6d80
	mkvEncoding       = 0x6240
	mkvCompression    = 0x5034
	mkvAlgorithm      = 0x4254
	mkvSettings       = 0x4255
	mkvEncryption     = 0x5035
	mkvCluster        = 0x1f43b675
	mkvTimestamp      = 0xe7
	mkvSimpleBlock    = 0xa3
	mkvBlockGroup     = 0xa0
	mkvBlock          = 0xa1
	mkvDiscardPadding = 0x75a2
)

const (
	mkvMark        = "\x1a\x45\xdf\xa3"
	mkvClusterMark = "\x1f\x43\xb6\x75"
	// mkvLongestHeader is the size of the longest header of an element.
	mkvLongestHeader = 12
	mkvUnknownSize   = math.MaxUint64
	// mkvAudioTrack is a type of track, mkvStripped a compression that only leaves out how each frame begins.
	mkvAudioTrack, mkvStripped = 2, 3
	mkvDefaultScale            = uint64(time.Millisecond)
	// lacesXiph, lacesEBML and lacesFixed are how a block says the sizes of several frames.
	lacesXiph, lacesFixed, lacesEBML = 1, 2, 3
	// maxValue and maxBlock bound what is read of an element and of a block, maxWindow what is searched at once.
	maxValue, maxBlock, maxWindow = 1 << 18, 1 << 20, 64 << 10
)

// mkvTrack is what the elements of a track say, and how much audio its blocks hold.
type mkvTrack struct {
	number, kind   uint64
	codecID        string
	private        []byte
	delay          uint64
	rate           float64
	channels, bits uint64
	// prefix is what was stripped from the beginning of each frame. Blocks are opaque where they are compressed
	// otherwise.
	prefix []byte
	opaque bool

	codec   packets
	ready   bool
	samples uint64
	clock   clock
}

// mkvFile adds up the segments of a file, of each the longest track of audio.
type mkvFile struct {
	r io.ReaderAt
	// at is the offset of what comes next, end that of the file's end.
	at, end int64

	total  time.Duration
	tracks map[uint64]*mkvTrack
	// track is the one of the present entry.
	track          *mkvTrack
	scale, cluster uint64
	found          bool
	// block is the track of the present block, and added how many samples that has.
	block *mkvTrack
	added uint64
	buf   []byte
}

// mkvDuration goes through the elements one by one. Those that hold others are entered, so that it does not matter
// whether their sizes are known or true.
func mkvDuration(r *io.SectionReader) (time.Duration, error) {
	m := &mkvFile{r: r, end: r.Size()}
	m.reset()
	for m.at < m.end {
		id, size, header, err := m.header()
		if err != nil {
			return 0, err
		}
		if header == 0 {
			if err := m.resync(); err != nil {
				return 0, err
			}
			continue
		}
		inside := m.at + int64(header)
		switch id {
		case mkvEBML: // A file behind a file.
			if err := m.endSegment(); err != nil {
				return 0, err
			}
			m.reset()
		case mkvSegment, mkvInfo, mkvTracks, mkvAudio, mkvEncodings, mkvEncoding, mkvCompression, mkvCluster,
			mkvBlockGroup:
			m.at = inside
			continue
		case mkvTrackEntry:
			m.track = &mkvTrack{rate: 8000, channels: 1}
			m.at = inside
			continue
		}
		if size > uint64(m.end-inside) { // cut off, or damaged
			if err := m.resync(); err != nil {
				return 0, err
			}
			continue
		}
		m.at = inside + int64(size)
		if err := m.element(id, inside, size); err != nil {
			return 0, err
		}
	}
	if err := m.endSegment(); err != nil {
		return 0, err
	}
	if !m.found {
		return 0, errors.New("no audio track is in it")
	}
	return m.total, nil
}

func (m *mkvFile) reset() {
	m.tracks, m.track, m.block = map[uint64]*mkvTrack{}, nil, nil
	m.scale, m.cluster = mkvDefaultScale, 0
}

// header reads number and size of the next element. There is none that begins here if its header has no length.
func (m *mkvFile) header() (id, size uint64, header int, err error) {
	b, err := m.read(m.at, min(mkvLongestHeader, m.end-m.at))
	if err != nil {
		return 0, 0, 0, err
	}
	n := bits.LeadingZeros8(b[0]) + 1
	if n > 4 || n >= len(b) {
		return 0, 0, 0, nil
	}
	for _, c := range b[:n] {
		id = id<<8 | uint64(c)
	}
	size, k := vint(b[n:])
	if k == 0 {
		return 0, 0, 0, nil
	}
	return id, size, n + k, nil
}

// vint reads a number that says its own length, which is 0 if there is none. All ones mean that it is not known.
func vint(b []byte) (v uint64, n int) {
	if len(b) == 0 {
		return 0, 0
	}
	n = bits.LeadingZeros8(b[0]) + 1
	if n > 8 || n > len(b) {
		return 0, 0
	}
	v = uint64(b[0]) & (1<<(8-n) - 1)
	for _, c := range b[1:n] {
		v = v<<8 | uint64(c)
	}
	if v == 1<<(7*n)-1 {
		v = mkvUnknownSize
	}
	return v, n
}

// resync goes on with the next cluster. It looks near by first, since there may be many places to go on from.
func (m *mkvFile) resync() error {
	m.at++
	for n := int64(len(mkvClusterMark)); m.at < m.end; n = min(2*n, maxWindow) {
		b, err := m.read(m.at, min(n, m.end-m.at))
		if err != nil {
			return err
		}
		if i := bytes.Index(b, []byte(mkvClusterMark)); i >= 0 {
			m.at += int64(i)
			return nil
		}
		if m.at += int64(len(b)); m.at < m.end {
			m.at -= int64(len(mkvClusterMark) - 1)
		}
	}
	return nil
}

// read returns a part of the file, which is kept until the next one is read.
func (m *mkvFile) read(at, n int64) ([]byte, error) {
	if int64(cap(m.buf)) < n {
		m.buf = make([]byte, n)
	}
	m.buf = m.buf[:n]
	_, err := m.r.ReadAt(m.buf, at)
	return m.buf, err
}

// element reads an element that holds no others.
func (m *mkvFile) element(id uint64, at int64, size uint64) error {
	switch id {
	case mkvSimpleBlock, mkvBlock:
		return m.media(at, size)
	case mkvTimestampScale, mkvTimestamp, mkvDiscardPadding:
	default:
		if m.track == nil {
			return nil
		}
	}
	if size > maxValue {
		return nil
	}
	b, err := m.read(at, int64(size))
	if err != nil {
		return err
	}
	switch id {
	case mkvTimestampScale:
		m.scale = max(number(b), 1)
	case mkvTimestamp:
		m.cluster = number(b)
		m.track = nil
	case mkvDiscardPadding:
		m.discard(b)
	default:
		return m.describe(id, b)
	}
	return nil
}

// describe takes what an element says of the present track.
func (m *mkvFile) describe(id uint64, b []byte) error {
	t := m.track
	switch id {
	case mkvTrackNumber:
		if len(m.tracks) == maxStreams {
			return damaged("it has more than %d tracks", maxStreams)
		}
		t.number = number(b)
		m.tracks[t.number] = t
	case mkvTrackType:
		t.kind = number(b)
		m.found = m.found || t.kind == mkvAudioTrack
	case mkvCodecID:
		t.codecID = strings.TrimRight(string(b), "\x00")
	case mkvCodecPrivate:
		t.private = bytes.Clone(b)
	case mkvCodecDelay:
		t.delay = number(b)
	case mkvRate:
		t.rate = float(b)
	case mkvChannels:
		t.channels = number(b)
	case mkvBitDepth:
		t.bits = number(b)
	case mkvAlgorithm:
		t.opaque = number(b) != mkvStripped
	case mkvSettings:
		t.prefix = bytes.Clone(b[:min(len(b), packetHead)])
	case mkvEncryption:
		t.opaque = true
	}
	return nil
}

// number reads an unsigned number of up to eight bytes.
func number(b []byte) (v uint64) {
	for _, c := range b[:min(len(b), 8)] {
		v = v<<8 | uint64(c)
	}
	return v
}

func float(b []byte) float64 {
	switch len(b) {
	case 4:
		return float64(math.Float32frombits(big.Uint32(b)))
	case 8:
		return math.Float64frombits(big.Uint64(b))
	}
	return 0
}

// media counts the frames of a block.
func (m *mkvFile) media(at int64, size uint64) error {
	m.track = nil
	m.block = nil
	b, err := m.read(at, min(int64(size), mkvLongestHeader))
	if err != nil {
		return err
	}
	n, k := vint(b)
	t := m.tracks[n]
	if t == nil || t.kind != mkvAudioTrack || len(b) < k+3 {
		return nil
	}
	if b, err = m.read(at, min(int64(size), maxBlock)); err != nil {
		return err
	}
	t.prepare()
	m.block, m.added = t, 0
	if t.codec == nil {
		ticks := int64(m.cluster) + int64(int16(big.Uint16(b[k:])))
		if hi, lo := bits.Mul64(uint64(max(ticks, 0)), m.scale); hi == 0 && lo < math.MaxInt64 {
			t.clock.tick(time.Duration(lo))
			t.clock.bytes(int(min(size, maxBlock)))
		}
		return nil
	}
	for _, frame := range laces(b[k+2:]) {
		if n := len(t.prefix); n > 0 {
			var whole [2 * packetHead]byte
			copy(whole[:], t.prefix)
			frame = whole[:n+copy(whole[n:], frame)]
		}
		m.added += t.codec.samples(frame)
	}
	t.samples += m.added
	return nil
}

// laces returns the frames of a block from its flags on.
func laces(b []byte) [][]byte {
	kind := b[0] >> 1 & 3
	if b = b[1:]; kind == 0 {
		return [][]byte{b}
	}
	if len(b) == 0 {
		return nil
	}
	n := int(b[0]) + 1
	if b = b[1:]; n > len(b) { // there is at least a byte of each
		return nil
	}
	sizes := make([]int, 0, n)
	var size, at int
	switch kind {
	case lacesFixed:
		for range n - 1 {
			sizes = append(sizes, len(b)/n)
		}
	case lacesXiph:
		for ; len(sizes) < n-1 && at < len(b); at++ {
			if size += int(b[at]); b[at] != 255 {
				sizes = append(sizes, size)
				size = 0
			}
		}
	case lacesEBML:
		for len(sizes) < n-1 {
			v, k := vint(b[at:])
			if k == 0 {
				return nil
			}
			if v == mkvUnknownSize {
				v = 1<<(7*k) - 1
			}
			if at += k; len(sizes) > 0 { // the difference to the one before
				v = uint64(size) + v - (1<<(7*k-1) - 1)
			}
			if v > uint64(len(b)) {
				return nil
			}
			size = int(v)
			sizes = append(sizes, size)
		}
	}
	var frames [][]byte
	for _, size := range sizes {
		if size > len(b)-at {
			return frames
		}
		frames = append(frames, b[at:at+size])
		at += size
	}
	return append(frames, b[at:])
}

// discard takes off the end of the present block what is not to be played.
func (m *mkvFile) discard(b []byte) {
	n := number(b)
	signed := len(b) > 0 && b[0] >= 0x80 // what is to be discarded at the beginning
	if t := m.block; t != nil && !signed && t.rate > 0 {
		t.samples -= min(uint64(float64(n)*t.rate/float64(time.Second)+0.5), m.added, t.samples)
	}
}

// prepare finds out how the frames of a track are counted.
func (t *mkvTrack) prepare() {
	if t.ready {
		return
	}
	t.ready = true
	if t.opaque {
		return
	}
	switch id := t.codecID; {
	case id == "A_OPUS":
		t.codec, t.rate = opus{}, opusRate
	case id == "A_VORBIS":
		if first, setup, ok := vorbisPrivate(t.private); ok {
			if v, ok := newVorbis(first, setup); ok {
				t.codec, t.rate = v, float64(little.Uint32(first[vorbisRate:]))
			}
		}
	case strings.HasPrefix(id, "A_AAC"):
		if rate, samples, ok := aacConfig(t.private); ok {
			t.codec, t.rate = fixed(samples), float64(rate)
		}
	case strings.HasPrefix(id, "A_MPEG/L"):
		t.codec = mpegPackets{}
	case id == "A_FLAC" && len(t.private) >= len(flacMark)+flacBlock+streamInfo:
		t.codec = flacPackets{parseStreamInfo(t.private[len(flacMark)+flacBlock:])}
	case strings.HasPrefix(id, "A_PCM") && t.channels > 0 && t.bits > 0:
		t.codec = samplesOf(max(t.channels*t.bits/8, 1))
	case id == "A_ALAC" && len(t.private) >= 4:
		t.codec = alac(min(big.Uint32(t.private), maxPacket))
	case id == "A_AC3":
		t.codec = fixed(1536)
	}
}

// samplesOf are samples of so many bytes.
type samplesOf uint64

func (s samplesOf) samples(b []byte) uint64 { return uint64(len(b)) / uint64(s) }

// vorbisPrivate splits the three headers of Vorbis, whose sizes but the last one's stand before them.
func vorbisPrivate(b []byte) (first, setup []byte, ok bool) {
	if len(b) == 0 || b[0] != 2 {
		return nil, nil, false
	}
	var sizes [2]int
	at := 1
	for i := range sizes {
		for {
			if at >= len(b) {
				return nil, nil, false
			}
			c := b[at]
			at++
			if sizes[i] += int(c); c != 255 {
				break
			}
		}
	}
	if sizes[0]+sizes[1] > len(b)-at || sizes[0] < vorbisIdentification {
		return nil, nil, false
	}
	return b[at : at+sizes[0]], b[at+sizes[0]+sizes[1]:], true
}

// aacConfig reads how AAC is set up: the rate of its core, and how many samples at that rate a frame has.
func aacConfig(b []byte) (rate uint32, samples uint64, ok bool) {
	if len(b) < 2 {
		return 0, 0, false
	}
	var wide [8]byte
	copy(wide[:], b)
	v := big.Uint64(wide[:])
	take := func(n int) (x uint64) {
		x = v >> (64 - n)
		v <<= n
		return x
	}
	object := take(5)
	if object == 31 {
		object = 32 + take(6)
	}
	if i := take(4); i == 15 {
		rate = uint32(take(24))
	} else if i < uint64(len(aacRates)) {
		rate = aacRates[i]
	}
	channels := take(4)
	if object == 5 || object == 29 { // the rate that the codec makes of it, and the core's kind
		if take(4) == 15 {
			take(24)
		}
		object = take(5)
	}
	short := take(1) == 1 && channels <= 15
	switch {
	case rate == 0:
		return 0, 0, false
	case object == 23 || object == 39:
		samples = 512
	default:
		samples = aacSamples
	}
	if short {
		samples = samples * 15 / 16
	}
	return rate, samples, true
}

func (m *mkvFile) endSegment() error {
	var most time.Duration
	for _, t := range m.tracks {
		if t.kind != mkvAudioTrack {
			continue
		}
		d := t.clock.length()
		if t.codec != nil {
			var err error
			if d, err = (pcm{rate: t.rate}).length(t.samples); err != nil {
				return err
			}
			d -= min(time.Duration(min(t.delay, math.MaxInt64)), d)
		}
		most = max(most, d)
	}
	var err error
	m.total, err = add(m.total, most)
	return err
}
