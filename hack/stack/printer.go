// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// printer writes what a person follows: each line that begins something says when, since the start.
type printer struct {
	file    *os.File
	colours bool
	started time.Time
}

const (
	bold  = "1"
	faint = "2"
	red   = "1;31"
	green = "32"
	cyan  = "36"
)

func newPrinter(file *os.File) *printer {
	info, err := file.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &printer{file: file, started: time.Now(),
		colours: terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func (p *printer) paint(colour, s string) string {
	if !p.colours {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

func (p *printer) text(s string) { _, _ = fmt.Fprintln(p.file, s) }

func (p *printer) elapsed() string { return fmt.Sprintf("[%5.1f s]", time.Since(p.started).Seconds()) }

func (p *printer) progress(what string) { p.text(p.paint(faint, p.elapsed()) + " " + what) }

func (p *printer) heading(what string) {
	p.text("\n" + p.paint(faint, p.elapsed()) + " " + p.paint(bold, what))
}

func (p *printer) command(line string) { p.text(p.paint(cyan, "  $ "+line)) }

func (p *printer) answer(s string) {
	if s = strings.TrimRight(s, "\n"); s != "" {
		p.text("    " + strings.ReplaceAll(s, "\n", "\n    "))
	}
}

func (p *printer) claim(what string) { p.text(p.paint(green, "  ok: ") + what) }

func (p *printer) failure(what string) { p.text(p.paint(red, "  FAILED: ") + what) }
