// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/testing/freeport"
	"github.com/cantonesescribe/usage-operator/internal/testing/localstack"
)

// checkRequest and checkAnswer are the JSON of a pre-flight check, which the bare handler decodes and encodes and does
// nothing else.
type checkRequest struct {
	UserID                   string      `json:"user_id"`
	EstimatedDurationSeconds json.Number `json:"estimated_duration_seconds"`
	FileSizeBytes            int64       `json:"file_size_bytes"`
}

type checkAnswer struct {
	CanProcess bool   `json:"can_process"`
	WouldQueue bool   `json:"would_queue"`
	Message    string `json:"message"`
	Plan       struct {
		Name        string `json:"name"`
		DisplayName string `json:"display_name"`
	} `json:"plan"`
	RemainingCredits json.Number `json:"remaining_credits"`
	ResetsAt         time.Time   `json:"resets_at"`
	AsOf             time.Time   `json:"as_of"`
}

func answerBare(w http.ResponseWriter, r *http.Request) {
	var request checkRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer := checkAnswer{CanProcess: request.UserID != "", Message: "allowed", RemainingCredits: "9999997",
		ResetsAt: time.Now().UTC(), AsOf: time.Now().UTC()}
	answer.Plan.Name, answer.Plan.DisplayName = "bench", "Bench"
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// serveBare serves until ctx ends.
func serveBare(ctx context.Context, address string) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/usage/check", answerBare)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// checks is a target that asks instead of admitting: each "pair" is one pre-flight check.
type checks struct {
	*overHTTP

	// maxAge is how many seconds old an answer may be.
	maxAge int
}

func (t checks) pair(ctx context.Context, client, user int) error {
	var answer checkAnswer
	body := workFor(user)
	if t.maxAge > 0 {
		body = strings.TrimSuffix(body, "}") + `,"max_age":` + strconv.Itoa(t.maxAge) + "}"
	}
	if err := t.post(ctx, client, "/api/v1/usage/check", "Bearer "+token(client), body, http.StatusOK,
		&answer); err != nil {
		return err
	}
	if !answer.CanProcess {
		return errors.New("user-" + strconv.Itoa(user) + ": the check refuses: " + answer.Message)
	}
	return nil
}

// startBare runs the bare handler in a process of its own until stop is called.
func (b *bench) startBare(ctx context.Context) (t *overHTTP, stop func() error, err error) {
	port, err := freeport.Get()
	if err != nil {
		return nil, nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	ctx, processes := localstack.NewProcesses(ctx, b.dir)
	if err := processes.Start("bare", self, nil, "-bare="+address); err != nil {
		return nil, nil, err
	}
	listening := func(ctx context.Context) (bool, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return false, nil //nolint:nilerr // not yet
		}
		return true, conn.Close()
	}
	if err := localstack.Eventually(ctx, "the bare handler listens", listening); err != nil {
		return nil, nil, errors.Join(err, processes.StopAll())
	}
	t = newOverHTTP([]string{address}, many)
	return t, func() error {
		t.close()
		return processes.StopAll()
	}, nil
}

// checkHTTP compares pre-flight checks with the bare handler.
func (b *bench) checkHTTP(ctx context.Context) (err error) {
	l := b.load(some, uniform)
	s, err := b.shared(ctx)
	if err != nil {
		return err
	}
	ours, err := b.try(ctx, "checks over HTTP", checks{s.target, 0}, l, &books{})
	if err != nil {
		return err
	}
	t, stop, err := b.startBare(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	bare, err := b.try(ctx, "a bare handler", checks{t, 0}, l, &books{})
	if err != nil {
		return err
	}
	b.report.rate("check_http", ours, bare, 0.35)
	older, err := b.try(ctx, "checks over HTTP that may be a second old", checks{s.target, 1}, l, &books{})
	if err != nil {
		return err
	}
	b.report.rate("check_http_max_age", older, bare, 0.6)
	return nil
}
