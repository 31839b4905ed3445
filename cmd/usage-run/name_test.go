// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// TestHashOf: a file that is hashed whole has another hash when a byte is another; of a longer one its ends and its
// size count.
func TestHashOf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 3
		size := rapid.IntRange(1, 5*blockSize).Draw(t, "size")
		data := make([]byte, size)
		was := hashed(t, data, most)
		at := rapid.IntRange(0, size-1).Draw(t, "at")
		if size > most*blockSize {
			hashed := []int{0, blockSize - 1, size/2 - 1, size / 2, size - blockSize, size - 1}
			at = rapid.SampledFrom(hashed).Draw(t, "at")
		}
		data[at] = 1
		if bytes.Equal(hashed(t, data, most), was) {
			t.Errorf("a file of %d bytes has the same hash with another byte at %d", size, at)
		}
		data[at] = 0
		if !bytes.Equal(hashed(t, data, most), was) {
			t.Errorf("a file of %d bytes has another hash when it is read again", size)
		}
		if bytes.Equal(hashed(t, bytes.Join([][]byte{data, {0}}, nil), most), was) {
			t.Errorf("a file of %d bytes has the same hash with a byte more", size)
		}
	})
}

func hashed(t *rapid.T, data []byte, most int64) []byte {
	hash, err := hashOf(t.Context(), bytes.NewReader(data), int64(len(data)), most)
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

// TestContentOfHuge: of a terabyte no more than the bound is read.
func TestContentOfHuge(t *testing.T) {
	var read counter
	if _, err := hashOf(t.Context(), &read, quota.MaxFileSize, blocks); err != nil {
		t.Fatal(err)
	}
	if read.bytes != wholeFile || read.last != quota.MaxFileSize {
		t.Errorf("%d bytes were read, up to %d; want %d, up to %d", read.bytes, read.last, wholeFile, quota.MaxFileSize)
	}
}

// counter counts what is read of an endless file.
type counter struct{ bytes, last int64 }

func (c *counter) ReadAt(p []byte, at int64) (int, error) {
	c.bytes += int64(len(p))
	c.last = max(c.last, at+int64(len(p)))
	return len(p), nil
}

func TestContentOf(t *testing.T) {
	folder := t.TempDir()
	pipe := filepath.Join(folder, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", filepath.Join(folder, "none"), folder, pipe} {
		if hash, err := contentOf(t.Context(), path); hash != nil || err != nil {
			t.Errorf("%q: got %x, %v; want nothing", path, hash, err)
		}
	}
	if _, err := contentOf(t.Context(), toneFile+"/x"); err == nil {
		t.Error("a path that cannot be looked at: got no error")
	}
	empty := filepath.Join(folder, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if hash, err := contentOf(t.Context(), empty); hash == nil || err != nil {
		t.Errorf("an empty file: got %x, %v", hash, err)
	}
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(interrupted{syscall.SIGTERM})
	if _, err := contentOf(ended, toneFile); !errors.Is(err, interrupted{syscall.SIGTERM}) {
		t.Errorf("interrupted: got %v", err)
	}
}
