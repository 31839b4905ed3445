// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"
)

// name is what a piece of work is known by: asked for under one name it is charged once.
type name struct {
	key string
	// content says that the key follows from the audio, so that what has another name is other work.
	content bool
}

// again is the key of a run of what an earlier attempt was charged for; each is another one.
func (n name) again() string { return n.key + "@" + uuid.NewString() }

// nameOf returns the name that was given, else one that is the same for a container that is started again, and another
// one for other audio under the same path. Outside a pod nothing tells two runs apart from a run and its repetition, so
// there every run is work of its own.
func nameOf(ctx context.Context, o options, w work) (name, error) {
	if o.key != "" {
		return name{key: o.key}, nil
	}
	pod, _ := podUID(ctx, o.tokenFile) // a token of another kind names none
	if pod == "" {
		return name{key: uuid.NewString()}, nil
	}
	content, err := contentOf(ctx, w.audio)
	if err != nil {
		return name{}, err
	}
	path := w.audio
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	hash := sha256.New()
	_, _ = fmt.Fprintf(hash, "%q %q %x", path, o.command, content)
	if content == nil {
		_, _ = fmt.Fprintf(hash, " %d %d", w.duration, w.size)
	}
	return name{key: pod + "/" + hex.EncodeToString(hash.Sum(nil)[:16]), content: content != nil}, nil
}

// How much of a file is hashed. What is longer than wholeFile tells itself apart by its size and by so many blocks,
// spread evenly from its first byte to its last: 1 GiB in all.
const (
	wholeFile = 1 << 30
	blockSize = 1 << 20
	blocks    = wholeFile / blockSize
)

// contentOf returns a hash of a file's content, or nothing where there is no regular file to read.
func contentOf(ctx context.Context, path string) ([]byte, error) {
	stat, err := os.Stat(path) // asked before opening, which blocks on a pipe
	if errors.Is(err, fs.ErrNotExist) || err == nil && !stat.Mode().IsRegular() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	hash, err := hashOf(ctx, f, stat.Size(), blocks)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return hash, nil
}

// hashOf hashes a file's size and, of its blocks, as many as most, spread evenly.
func hashOf(ctx context.Context, r io.ReaderAt, size int64, most int64) ([]byte, error) {
	hash := sha256.New()
	_, _ = fmt.Fprintf(hash, "%d\n", size)
	block := make([]byte, blockSize)
	n := min((size+blockSize-1)/blockSize, most)
	for i := range n {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		at := i * blockSize
		if n == most {
			at = (size - blockSize) / (most - 1) * i
		}
		if i == most-1 { // the last one ends where the file does
			at = size - blockSize
		}
		part, err := r.ReadAt(block, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		_, _ = hash.Write(block[:part])
	}
	return hash.Sum(nil), nil
}
