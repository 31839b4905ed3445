// SPDX-License-Identifier: Apache-2.0

package audio

import (
	"errors"
	"io"
	"time"

	"github.com/mewkiz/flac"
)

// streamInfo is the header of the block that must come first: its type, 0, and its length, 34 bytes. The library would take
// another block there and make room for as much as that claims.
const streamInfo = 34

func flacDuration(r *io.SectionReader) (time.Duration, error) {
	var mark [8]byte
	if _, err := r.ReadAt(mark[:], 0); err != nil {
		return 0, err
	}
	if big.Uint32(mark[4:])&^(1<<31) != streamInfo {
		return 0, damaged("its first block is not a STREAMINFO")
	}
	stream, err := flac.New(r)
	if err != nil {
		return 0, damaged("%v", err)
	}
	samples := stream.Info.NSamples
	if samples == 0 { // It was written to a pipe.
		if samples, err = countFLAC(stream); err != nil {
			return 0, err
		}
	}
	return length(samples, uint64(stream.Info.SampleRate))
}

// countFLAC decodes the stream: where a frame ends is known only then.
func countFLAC(stream *flac.Stream) (samples uint64, err error) {
	for {
		frame, err := stream.ParseNext()
		switch {
		case errors.Is(err, io.EOF):
			return samples, nil
		case err != nil:
			return 0, damaged("%v", err)
		}
		samples += uint64(frame.BlockSize)
	}
}
