// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	progressInterval = 5 * time.Second
	// shown is how many findings are printed; the rest are counted.
	shown = 50
)

// report counts what happens and tells it.
type report struct {
	start time.Time

	// operations are answers that say what became of a call, refusals by a limit not among them. A retry is a call that
	// was sent again because its answer is not known; a duplicate is one that the service found done already.
	operations, refusals, retries, duplicates atomic.Int64
	// internal are answers with status 500, which the service should have had a better word for.
	internal    atomic.Int64
	kills, cuts atomic.Int64
	stalls      atomic.Int64

	mu         sync.Mutex
	violations []string
	recoveries []time.Duration
	answered   chan time.Time // gets the time of the next acknowledged operation; nil unless somebody waits
	last       int64
}

func newReport() *report { return &report{start: time.Now()} }

func (r *report) progressf(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stdout, "[%4.0fs] %s\n", time.Since(r.start).Seconds(), fmt.Sprintf(format, args...))
}

// every prints how far it is until stop is called, which may happen twice.
func (r *report) every(d time.Duration) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				now := r.operations.Load()
				r.progressf(
					"%d operations (%.0f/s), %d kills, %d cuts, %d stalls, %d retries, %d duplicates suppressed, %d "+
						"refusals",
					now, float64(now-r.last)/d.Seconds(), r.kills.Load(), r.cuts.Load(), r.stalls.Load(),
					r.retries.Load(), r.duplicates.Load(), r.refusals.Load())
				r.last = now
			}
		}
	}()
	var once sync.Once
	return func() {
		once.Do(func() { close(done) })
		<-ended
	}
}

// acknowledged counts an operation.
func (r *report) acknowledged() {
	r.operations.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answered != nil {
		r.answered <- time.Now()
		r.answered = nil
	}
}

// next gets the time of the next operation that is acknowledged.
func (r *report) next() <-chan time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answered = make(chan time.Time, 1)
	return r.answered
}

func (r *report) recovered(after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recoveries = append(r.recoveries, after)
}

// violation notes an answer that contradicts an earlier one.
func (r *report) violationf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.violations = append(r.violations, text); len(r.violations) <= shown {
		r.progressf("VIOLATION %s", text)
	}
}

// summary prints the verdict, at last in the one line that machines read.
func (r *report) summary(v verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, text := range v.texts[:min(len(v.texts), shown)] {
		_, _ = fmt.Fprintln(os.Stdout, text)
	}
	if more := len(v.texts) - shown; more > 0 {
		_, _ = fmt.Fprintf(os.Stdout, "and %d more\n", more)
	}
	if len(r.recoveries) > 0 {
		slices.Sort(r.recoveries)
		r.progressf(
			"from a server that answers again to the first acknowledged operation: median %s, longest %s, of %d",
			r.recoveries[len(r.recoveries)/2].Round(time.Millisecond),
			r.recoveries[len(r.recoveries)-1].Round(time.Millisecond), len(r.recoveries))
	}
	if n := r.internal.Load(); n > 0 {
		r.progressf("%d answers had status 500", n)
	}
	r.progressf("%s", v.checked)
	_, _ = fmt.Fprintf(os.Stdout,
		"CRASH operations=%d kills=%d retries=%d duplicates_suppressed=%d lost=%d violations=%d\n",
		r.operations.Load(), r.kills.Load(), r.retries.Load(), r.duplicates.Load(), v.lost, v.violations)
}
