// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// soak puts half of naive's rate on one usaged for as long as the option says, and compares its memory in the last
// quarter of the time with that in the second, when caches and connections are there.
func (b *bench) soak(ctx context.Context) (err error) {
	naive, err := b.naive(ctx, many, uniform)
	if err != nil {
		return err
	}
	s, err := b.shared(ctx)
	if err != nil {
		return err
	}
	l := b.load(many, uniform)
	l.rate, l.warmup, l.duration = naive.perSecond/2, 0, b.opts.soak
	sampling, stop := context.WithCancel(ctx)
	type sample struct {
		at    time.Duration
		bytes float64
	}
	samples, failed := make(chan []sample, 1), make(chan error, 1)
	go func() {
		var all []sample
		start := time.Now()
		for sleepUntil(sampling, time.Now().Add(b.opts.soak/100)) {
			bytes, err := s.target.metric(ctx, "process_resident_memory_bytes")
			if err != nil {
				failed <- err
				return
			}
			all = append(all, sample{at: time.Since(start), bytes: bytes})
		}
		samples <- all
	}()
	_, err = b.try(ctx, "HTTP, soak", s.target, l, s.books)
	stop()
	if err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case all := <-samples:
		mean := func(from, to time.Duration) float64 {
			sum, n := 0.0, 0
			for _, s := range all {
				if from <= s.at && s.at < to {
					sum, n = sum+s.bytes, n+1
				}
			}
			return sum / float64(max(n, 1)) / (1 << 20)
		}
		quarter := b.opts.soak / 4
		early, late := mean(quarter, 2*quarter), mean(3*quarter, 4*quarter)
		b.report.figure(figure{name: "memory_http_soak", ours: late, baseline: early, ratio: early / late, goal: 0.9})
	}
	return nil
}

// metric reads a metric without labels of the first replica.
func (t *overHTTP) metric(ctx context.Context, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.addresses[0]+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token(0))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, errors.Join(fmt.Errorf("usaged shows no metric %s", name), lines.Err())
}
