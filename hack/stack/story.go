// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/cantonesescribe/usage-operator/internal/testing/localstack"
)

// testclock names the file that says how far the programs' time is ahead.
const testclock = "USAGE_TEST_CLOCK"

// story plays steps. What a step prints as a command is what runs: a shell with the variables that the story has set.
type story struct {
	out     *printer
	stack   *localstack.Stack
	clients *kubernetes.Clientset
	vars    map[string]string
	results []result
}

type result struct {
	title string
	took  time.Duration
	err   error
}

// step is one claim about the product, or a few that belong together.
type step struct {
	title string
	play  func(context.Context, *story) error
}

// answer is what a command printed (standard output and error together) and its exit code.
type answer struct {
	text string
	code int
}

func newStory(out *printer, stack *localstack.Stack, root string) (*story, error) {
	clients, err := kubernetes.NewForConfig(stack.Plane.Config)
	if err != nil {
		return nil, err
	}
	programs := filepath.Join(stack.Dir(), "programs")
	if err := os.Mkdir(programs, 0o700); err != nil {
		return nil, err
	}
	if _, err := exec.LookPath("curl"); err != nil {
		if err := provideCurl(programs); err != nil {
			return nil, err
		}
	}
	if err := os.Symlink(filepath.Join(root, "bin", localstack.Batch),
		filepath.Join(programs, localstack.Batch)); err != nil {
		return nil, err
	}
	return &story{
		out: out, stack: stack, clients: clients,
		vars: map[string]string{
			"PATH": strings.Join([]string{filepath.Dir(stack.Plane.Kubectl()), programs, os.Getenv("PATH")},
				":"),
			"KUBECONFIG":   stack.Plane.Kubeconfig,
			"USAGED":       stack.UsagedURL,
			"DATABASE_URL": stack.DatabaseURL,
			testclock:      stack.ClockFile(),
		},
	}, nil
}

// play runs the steps in order. A step that fails does not keep the later ones from being tried.
func (s *story) play(ctx context.Context, steps []step) error {
	for i, st := range steps {
		title := fmt.Sprintf("%d. %s", i+1, st.title)
		s.out.heading(title)
		started := time.Now()
		err := st.play(ctx, s)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			s.out.failure(err.Error())
		}
		s.results = append(s.results, result{title: title, took: time.Since(started), err: err})
	}
	return s.summarise()
}

func (s *story) summarise() error {
	s.out.heading("Summary")
	failed := 0
	for _, r := range s.results {
		verdict := s.out.paint(green, "ok    ")
		if r.err != nil {
			verdict = s.out.paint(red, "FAILED")
			failed++
		}
		s.out.text(fmt.Sprintf("  %s  %5.1f s  %s", verdict, r.took.Seconds(), r.title))
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d steps did not do what they claim", failed, len(s.results))
	}
	s.out.text(fmt.Sprintf("\n  All %d steps did what they claim, %.0f s in all.", len(s.results),
		time.Since(s.out.started).Seconds()))
	return nil
}

// run prints a command line, runs it and prints its answer.
func (s *story) run(ctx context.Context, line string) (answer, error) {
	s.out.command(line)
	a, err := s.quietly(ctx, line)
	s.out.answer(a.text)
	return a, err
}

// quietly runs a command line without printing anything.
func (s *story) quietly(ctx context.Context, line string) (answer, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	cmd.Env = os.Environ()
	for _, name := range slices.Sorted(maps.Keys(s.vars)) {
		cmd.Env = append(cmd.Env, name+"="+s.vars[name])
	}
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return answer{text: text.String(), code: exit.ExitCode()}, nil
	}
	return answer{text: text.String()}, err
}

// succeed runs a command line that has to succeed.
func (s *story) succeed(ctx context.Context, line string) (string, error) {
	a, err := s.run(ctx, line)
	if err == nil && a.code != 0 {
		err = fmt.Errorf("expected the command to succeed, it ended with code %d", a.code)
	}
	return a.text, err
}

// set runs a command line whose output becomes the value of a variable; only the line is printed.
func (s *story) set(ctx context.Context, name, line string) error {
	s.out.command(name + "=$(" + line + ")")
	a, err := s.quietly(ctx, line)
	if err == nil && a.code != 0 {
		err = fmt.Errorf("expected the command to succeed, it ended with code %d: %s", a.code, a.text)
	}
	s.vars[name] = strings.TrimSpace(a.text)
	return err
}

// assign sets a variable to something that an answer held.
func (s *story) assign(name, value string) {
	s.out.command(name + "=" + value)
	s.vars[name] = value
}

// refused runs a command line that the API server has to refuse, naming all that is wanted.
func (s *story) refused(ctx context.Context, line string, want ...string) error {
	a, err := s.run(ctx, line)
	if err != nil {
		return err
	}
	if a.code == 0 {
		return fmt.Errorf("expected the command to be refused with %s, it succeeded", quoted(want))
	}
	return s.contains("the refusal", a.text, want...)
}

// contains claims that a text names all that is wanted.
func (s *story) contains(what, text string, want ...string) error {
	for _, w := range want {
		if !strings.Contains(text, w) {
			return fmt.Errorf("expected %s to contain %q, got: %s", what, w, strings.TrimSpace(text))
		}
	}
	s.out.claim(what + " says " + quoted(want))
	return nil
}

// equal claims that a value is what it should be.
func equal[T comparable](s *story, what string, got, want T) error {
	if got != want {
		return fmt.Errorf("expected %s to be %v, got %v", what, want, got)
	}
	s.out.claim(fmt.Sprintf("%s is %v", what, got))
	return nil
}

func quoted(words []string) string {
	var q []string
	for _, w := range words {
		q = append(q, fmt.Sprintf("%q", w))
	}
	return strings.Join(q, ", ")
}
