// SPDX-License-Identifier: Apache-2.0

// Command worker stands in for a transcription in the end-to-end suite: it takes as long, uses as much memory or ends
// as a spec wants it to.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

const usage = `usage: worker sleep DURATION | exit CODE | eat | load FLAGS
  sleep  runs for the duration; a SIGTERM ends it with code 143
  exit   ends at once with the code
  eat    takes memory until it is killed for it
  load   is many clients of usaged; see load --help`

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
	}
	os.Exit(code)
}

func run(args []string) (code int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	switch {
	case len(args) == 2 && args[0] == "sleep":
		d, err := time.ParseDuration(args[1])
		if err != nil {
			return 2, err
		}
		select {
		case <-ctx.Done():
			return 128 + int(syscall.SIGTERM), nil
		case <-time.After(d):
			return 0, nil
		}
	case len(args) == 2 && args[0] == "exit":
		code, err := strconv.Atoi(args[1])
		return code, err
	case len(args) > 0 && args[0] == "load":
		if err := runLoad(ctx, args[1:]); err != nil {
			return 1, err
		}
		return 0, nil
	case len(args) == 1 && args[0] == "eat":
		return eat(ctx), nil
	}
	fmt.Fprintln(os.Stderr, usage)
	return 2, nil
}

// eat touches every page, so that the kernel has to find it.
func eat(ctx context.Context) int {
	const chunk = 16 << 20
	var eaten [][]byte
	for ctx.Err() == nil {
		piece := make([]byte, chunk)
		for i := 0; i < chunk; i += os.Getpagesize() {
			piece[i] = 1
		}
		eaten = append(eaten, piece)
	}
	return len(eaten)
}
