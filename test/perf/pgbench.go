// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

//go:embed scripts/*.sql
var scripts embed.FS

// The ways in which pgbench makes the same two transactions.
const (
	prepared  = "prepared"
	pipelined = "pipelined"
	statement = "statement"
)

var variants = []string{prepared, pipelined, statement}

// pgbench runs the scripts with PostgreSQL's own load generator.
type pgbench struct {
	binary string
	dir    string
}

func newPgbench(binDir, dir string) (*pgbench, error) {
	binary := filepath.Join(binDir, "pgbench")
	if _, err := os.Stat(binary); errors.Is(err, fs.ErrNotExist) {
		// Some distributions keep the programs of clients in a folder of their own.
		if binary, err = exec.LookPath("pgbench"); err != nil {
			return nil, fmt.Errorf("the baselines need pgbench, which is part of PostgreSQL: %w", err)
		}
	}
	for _, v := range variants {
		text, err := scripts.ReadFile("scripts/" + v + ".sql")
		if err != nil {
			return nil, err
		}
		for _, s := range []spread{uniform, zipf, hot} {
			script := strings.Replace(withoutComments(string(text)), everyUser,
				everyUser[:len(`\set u `)]+spreads[s], 1)
			if err := os.WriteFile(filepath.Join(dir, scriptFile(v, s)), []byte(script), 0o600); err != nil {
				return nil, err
			}
		}
	}
	return &pgbench{binary: binary, dir: dir}, nil
}

// everyUser is how the scripts choose a user, and spreads what stands in its place.
const everyUser = `\set u random(1, :users)`

var spreads = map[spread]string{
	uniform: "random(1, :users)", zipf: fmt.Sprintf("random_zipfian(1, :users, %g)", zipfExponent), hot: "1",
}

func scriptFile(variant string, s spread) string { return variant + "-" + s.String() + ".sql" }

// withoutComments drops comments, which pgbench would send to the server with each statement.
func withoutComments(script string) string {
	var b strings.Builder
	for line := range strings.Lines(script) {
		if !strings.HasPrefix(line, "--") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// errTooShort says that pgbench spent its time on connecting.
var errTooShort = errors.New("it measured too little after the warm-up")

// run puts the load on the database that dsn names. All transactions that it started have ended when it returns. The
// time that pgbench is given includes connecting, which is not measured.
func (p *pgbench) run(ctx context.Context, dsn, variant string, l load, connecting time.Duration) (result, error) {
	logs, err := os.MkdirTemp(p.dir, "pgbench-")
	if err != nil {
		return result{}, err
	}
	args := []string{
		"--no-vacuum", "--protocol=prepared", "--file=" + filepath.Join(p.dir, scriptFile(variant, l.spread)),
		"--define=users=" + strconv.Itoa(l.users),
		"--client=" + strconv.Itoa(l.clients), "--jobs=" + strconv.Itoa(min(l.clients, runtime.NumCPU())),
		"--time=" + strconv.Itoa(int((connecting + l.warmup + l.duration).Seconds())), "--progress=1",
		"--log", "--log-prefix=" + filepath.Join(logs, "log"),
	}
	if l.rate > 0 {
		args = append(args, "--rate="+strconv.FormatFloat(l.rate, 'f', 1, 64))
	} else {
		// Writing down every transaction would slow the baseline.
		args = append(args, "--sampling-rate=0.1")
	}
	cmd := exec.CommandContext(ctx, p.binary, append(args, dsn)...)
	cmd.Dir = logs
	out, err := cmd.CombinedOutput()
	if err != nil {
		return result{}, fmt.Errorf("pgbench with %s: %w: %s", variant, err, firstError(string(out)))
	}
	r, err := parsePgbench(string(out), int(l.warmup.Seconds()), int(l.duration.Seconds()+1)/2)
	if err != nil {
		return result{}, fmt.Errorf("pgbench with %s: %w", variant, err)
	}
	latencies, err := readLatencies(logs, l.warmup)
	if err != nil {
		return result{}, err
	}
	r.setLatencies(latencies)
	return r, os.RemoveAll(logs)
}

var (
	progressLine  = regexp.MustCompile(`(?m)^progress: [0-9.]+ s, ([0-9.]+) tps`)
	processedLine = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`)
	failedLine    = regexp.MustCompile(`(?m)^number of failed transactions: (\d+)`)
)

// parsePgbench reads what pgbench printed: a rate per second, of which the first ones are warm-up, and totals.
// Of the others there must be atLeast so many.
func parsePgbench(out string, warmup, atLeast int) (result, error) {
	seconds := progressLine.FindAllStringSubmatch(out, -1)
	if len(seconds) < warmup+atLeast {
		return result{}, fmt.Errorf("%w: it reported on %d seconds, the warm-up takes %d", errTooShort,
			len(seconds), warmup)
	}
	sum := 0.0
	for _, second := range seconds[warmup:] {
		tps, err := strconv.ParseFloat(second[1], 64)
		if err != nil {
			return result{}, err
		}
		sum += tps
	}
	if sum == 0 {
		return result{}, fmt.Errorf("%w: it made nothing after the warm-up", errTooShort)
	}
	processed := processedLine.FindStringSubmatch(out)
	if processed == nil {
		return result{}, fmt.Errorf("it did not say how many transactions it made: %s", lastLines(out))
	}
	pairs, err := strconv.Atoi(processed[1])
	if err != nil {
		return result{}, err
	}
	if failed := failedLine.FindStringSubmatch(out); failed != nil && failed[1] != "0" {
		return result{}, fmt.Errorf("%s transactions failed: %s", failed[1], lastLines(out))
	}
	return result{pairs: pairs, perSecond: sum / float64(len(seconds)-warmup)}, nil
}

// readLatencies reads the latencies of what ended after the warm-up from pgbench's logs, one file per thread.
func readLatencies(dir string, warmup time.Duration) ([]time.Duration, error) {
	files, err := filepath.Glob(filepath.Join(dir, "log*"))
	if err != nil {
		return nil, err
	}
	var all []entry
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		scanner := bufio.NewScanner(f)
		for scanner.Scan() {
			e, err := parseEntry(scanner.Text())
			if err != nil {
				return nil, errors.Join(err, f.Close())
			}
			all = append(all, e)
		}
		if err := errors.Join(scanner.Err(), f.Close()); err != nil {
			return nil, err
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	start := all[0].start()
	for _, e := range all {
		if e.start().Before(start) {
			start = e.start()
		}
	}
	var latencies []time.Duration
	for _, e := range all {
		if e.at.Sub(start) >= warmup {
			latencies = append(latencies, e.latency)
		}
	}
	return latencies, nil
}

// entry is one line of a log: client, number, latency, script, second, microsecond, and the lag with --rate, which the
// latency includes.
type entry struct {
	at      time.Time
	latency time.Duration
}

func (e entry) start() time.Time { return e.at.Add(-e.latency) }

func parseEntry(line string) (entry, error) {
	fields := strings.Fields(line)
	if len(fields) < 6 {
		return entry{}, fmt.Errorf("pgbench's log has a line %q, want at least 6 fields", line)
	}
	var n [3]int64
	for i, field := range []string{fields[2], fields[4], fields[5]} {
		var err error
		if n[i], err = strconv.ParseInt(field, 10, 64); err != nil {
			return entry{}, fmt.Errorf("pgbench's log has a line %q: %w", line, err)
		}
	}
	return entry{at: time.Unix(n[1], n[2]*1000), latency: time.Duration(n[0]) * time.Microsecond}, nil
}

// firstError returns the lines from the first complaint on: with many clients more of the same follow.
func firstError(out string) string {
	if i := strings.Index(out, "pgbench: error:"); i >= 0 {
		out = out[i:]
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.Join(lines[:min(3, len(lines))], "\n")
}

// lastLines are the end of what a program said.
func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}
