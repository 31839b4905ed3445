// SPDX-License-Identifier: Apache-2.0

// Command usage-run wraps a transcription command: it asks usaged for admission, waits for it, runs the command while
// it keeps the slot, and ends when what was used is known to be recorded.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/cantonesescribe/usage-operator/api/client"
)

func main() {
	signals, release := catch()
	code := run(os.Args[1:], os.Getenv, streams{os.Stdin, os.Stdout, os.Stderr}, signals)
	release()
	os.Exit(code)
}

// streams are a process's standard streams; files are passed on as they are.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// run returns the exit code.
func run(args []string, getenv func(string) string, streams streams, signals <-chan os.Signal) int {
	log := func(format string, args ...any) {
		_, _ = fmt.Fprintf(streams.err, "usage-run: "+format+"\n", args...)
	}
	o, err := parse(args, getenv, streams.err)
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	if err != nil {
		log("%v", err)
		return exitOwn
	}
	// What cannot run needs no slot.
	if _, err := exec.LookPath(o.command[0]); err != nil {
		return fail(log, notStarted(err))
	}
	if _, err := client.TokenFile(o.tokenFile)(context.Background()); err != nil {
		return fail(log, fmt.Errorf("--token-file: %w", err))
	}
	w, err := describe(o)
	if err != nil {
		return fail(log, err)
	}
	api, err := client.Connect(o.server, o.caFile)
	if err != nil {
		return fail(log, fmt.Errorf("--server, --ca-file: %w", err))
	}
	meter := &client.Meter{API: api, Token: client.TokenFile(o.tokenFile), ReachTimeout: o.admitTimeout,
		SettleTimeout: o.settleTimeout, Log: log}
	s := &service{meter: meter, o: o, w: w, log: log}
	a, err := interruptible(signals, s.acquire)
	switch {
	case errors.Is(err, errDone):
		log("key %s is done and charged already: not run again", o.key)
		return 0
	case err != nil && a != nil: // A signal came together with the slot.
		s.abandon(a)
		return fail(log, err)
	case err != nil:
		return fail(log, err)
	}
	log("%s", begun(a, w))
	code, err := execute(o.command, streams, signals)
	if err != nil {
		s.abandon(a)
		return fail(log, err)
	}
	return s.finish(a, code, signals)
}

func begun(a *admission, w work) string {
	got := a.Admission
	what := fmt.Sprintf("admitted: %s of audio, %s credits reserved for %s", w.duration, got.EstimatedCredits,
		got.UserId)
	switch {
	case a.paid:
		what = fmt.Sprintf("admitted: %s of audio, charged to %s before", w.duration, got.UserId)
	case a.joined:
		what += fmt.Sprintf(" by Job %s", got.Id)
	case got.Ticket != "":
		what += " on an offline ticket, because the database is away"
	}
	return what
}

// interrupted is the cause of a context that a signal has ended.
type interrupted struct{ syscall.Signal }

func (i interrupted) Error() string { return "ended by signal: " + i.String() }

// interruptible calls f with a context that the next signal which asks to end does end.
func interruptible[T any](signals <-chan os.Signal, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	returned, watching := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watching)
		for {
			select {
			case s := <-signals:
				if number, ok := s.(syscall.Signal); ok && ends(s) {
					cancel(interrupted{number})
					return
				}
			case <-returned:
				return
			}
		}
	}()
	result, err := f(ctx)
	close(returned)
	<-watching // the next signal is another reader's
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return result, err
}

// fail says why the command does not run and returns the exit code for it.
func fail(log func(string, ...any), err error) int {
	log("%v", err)
	if i, ok := errors.AsType[interrupted](err); ok {
		return exitSignal + int(i.Signal)
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.code
	}
	return exitOwn
}

// finish records what became of the command and returns the exit code. The first signal is not heeded: it would have
// been the command's, and the charge takes a moment only.
func (s *service) finish(a *admission, code int, signals <-chan os.Signal) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	go func() {
		for heard := 0; ; {
			select {
			case sig := <-signals:
				number, ok := sig.(syscall.Signal)
				if !ok || !ends(sig) {
					continue
				}
				if heard++; heard > 1 {
					cancel(interrupted{number})
					return
				}
				s.log("%s: the use is being recorded; once more gives that up", sig)
			case <-ctx.Done():
				return
			}
		}
	}()
	if a.paid || code != 0 && !s.o.chargeOnFailure {
		s.giveBack(ctx, a, code)
		return code
	}
	s.writeTermination(a)
	got, err := a.Complete(ctx, s.w.duration)
	if err != nil {
		s.log("the command ended with exit code %d, but its use of %s is not known to be recorded: %v", code,
			s.w.duration, err)
		if code == 0 {
			return exitUnrecorded
		}
		return code
	}
	if got.ReportedMs > 0 && got.ChargedMs == 0 {
		s.log("%s credits are recorded, charged when the Job is over", got.ReportedCredits)
	} else {
		s.log("%s credits are charged", got.ChargedCredits)
	}
	return code
}

// giveBack ends an admission without a charge. A Job may have it run again, so its own is left to the Job controller.
func (s *service) giveBack(ctx context.Context, a *admission, code int) {
	ended := fmt.Sprintf("the command failed with exit code %d", code)
	if code == 0 {
		ended = "the command succeeded, and was charged before"
	}
	if a.joined {
		s.log("%s: nothing is reported", ended)
		return
	}
	if _, err := a.Release(ctx); err != nil {
		s.log("%s; return the slot: %v; it returns by itself within %s", ended, err, s.o.lease)
		return
	}
	s.log("%s: nothing is charged", ended)
}

// writeTermination leaves the use where the Job controller looks if it learns of it in no other way. What the command
// has written itself stays.
func (s *service) writeTermination(a *admission) {
	path := s.o.terminationLog
	if stat, err := os.Stat(path); !a.joined || path == "" || err != nil || stat.Size() > 0 {
		return
	}
	text, err := report(s.w.duration)
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		s.log("--termination-log: %v", err)
	}
}
