// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// figure is one comparison. A ratio at or above the goal is good, and no higher than most, where there is one. Where
// high is not zero, the ratio would be between low and high for 95 % of all runs.
type figure struct {
	name                              string
	ours, baseline, ratio, goal, most float64
	low, high                         float64
}

// interval says what the ratio tells.
func (f figure) interval() string {
	return fmt.Sprintf("%.4f, with 95 %% confidence %.4f to %.4f", f.ratio, f.low, f.high)
}

func (f figure) missed() bool { return f.ratio < f.goal || f.most > 0 && f.ratio > f.most }

// trial is one measurement, for the table.
type trial struct {
	what    string
	clients int
	spread  spread
	result
}

// report prints what is measured as soon as it is.
type report struct {
	out     io.Writer
	start   time.Time
	trials  []trial
	figures []figure
}

func (r *report) progressf(format string, args ...any) {
	_, _ = fmt.Fprintf(r.out, "[%4.0fs] %s\n", time.Since(r.start).Seconds(), fmt.Sprintf(format, args...))
}

func (r *report) trial(what string, l load, res result) {
	r.trials = append(r.trials, trial{what: what, clients: l.clients, spread: l.spread, result: res})
	r.progressf("%s, %d clients, %s: %.0f pairs/s, p50 %s, p99 %s", what, l.clients, l.spread, res.perSecond,
		millis(res.p50), millis(res.p99))
}

// rate compares pairs per second.
func (r *report) rate(name string, ours, baseline result, goal float64) {
	r.figure(figure{name: name, ours: ours.perSecond, baseline: baseline.perSecond,
		ratio: ours.perSecond / baseline.perSecond, goal: goal})
}

// latency compares times in milliseconds, where less is better: the ratio is the baseline's to ours.
func (r *report) latency(name string, ours, baseline time.Duration, goal float64) {
	f := figure{name: name, ours: ours.Seconds() * 1000, baseline: baseline.Seconds() * 1000, goal: goal}
	f.ratio = f.baseline / f.ours
	r.figure(f)
}

func (r *report) figure(f figure) {
	r.figures = append(r.figures, f)
	if f.high != 0 {
		r.progressf("%s: %s", f.name, f.interval())
	}
	_, _ = fmt.Fprintf(r.out, "BENCH %s %.2f %.2f %.2f %.2f\n", f.name, f.ours, f.baseline, f.ratio, f.goal)
}

// summary prints everything again as tables and returns how many goals were missed.
func (r *report) summary() (missed int) {
	_, _ = fmt.Fprintln(r.out)
	w := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "TRIAL\tCLIENTS\tUSERS\tPAIRS/S\tP50 (pair)\tP99 (pair)\tACKNOWLEDGED")
	for _, t := range r.trials {
		_, _ = fmt.Fprintf(w, "%s\t%d\t%s\t%.0f\t%s\t%s\t%d\n", t.what, t.clients, t.spread, t.perSecond, millis(t.p50),
			millis(t.p99), t.pairs)
	}
	_, _ = fmt.Fprintln(w)
	_ = w.Flush()
	_, _ = fmt.Fprintln(w, "FIGURE\tOURS\tBASELINE\tRATIO\tGOAL\t")
	for _, f := range r.figures {
		verdict := "ok"
		if f.missed() {
			verdict = "MISSED"
			missed++
		}
		if f.high != 0 {
			verdict += ": " + f.interval()
		}
		_, _ = fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t%s\n", f.name, f.ours, f.baseline, f.ratio, f.goal, verdict)
	}
	_ = w.Flush()
	return missed
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1fms", d.Seconds()*1000) }
