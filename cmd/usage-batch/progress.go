// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/cantonesescribe/usage-operator/internal/reset"
)

// logInterval is how often a run says in the log how far it has come.
const logInterval = 10 * time.Second

// progress shows how far a reset has come: a bar on a terminal, plain lines elsewhere.
type progress struct {
	bar    *progressbar.ProgressBar
	out    io.Writer
	log    *slog.Logger
	plan   string
	logged time.Time
}

func newProgress(out io.Writer, log *slog.Logger, plan string) *progress {
	p := &progress{out: out, log: log, plan: plan, logged: time.Now()}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.bar = progressbar.NewOptions64(1, progressbar.OptionSetWriter(out),
			progressbar.OptionSetDescription("resetting "+plan),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("accounts"),
			progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(true))
	}
	return p
}

// show is told how far the run has come.
func (p *progress) show(r reset.Result) {
	if p.bar != nil {
		// More may fall due while the run goes on. A bar that cannot be drawn is nothing to fail for.
		p.bar.ChangeMax64(max(1, r.Due, r.Seen))
		_ = p.bar.Set64(r.Seen)
		return
	}
	if time.Since(p.logged) < logInterval {
		return
	}
	p.logged = time.Now()
	p.log.Info("resetting", "plan", p.plan, "seen", r.Seen, "due", r.Due, "accounts", r.Accounts, "periods", r.Periods,
		"failed", r.Failed)
}

func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
