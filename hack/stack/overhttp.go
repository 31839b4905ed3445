// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/http"
)

// admission is what the story reads of the HTTP service's answers about one.
type admission struct {
	ID          string `json:"id"`
	State       string `json:"state"`
	LeaseSecret string `json:"leaseSecret"`
	Charged     string `json:"charged"`
}

// overHTTP plays a backend that transcribes without a Job.
func overHTTP(ctx context.Context, s *story) error {
	if err := s.set(ctx, "TOKEN", "kubectl -n transcripts create token transcriber --audience=usaged"); err != nil {
		return err
	}
	var check struct {
		Allowed bool `json:"allowed"`
	}
	err := s.curl(ctx, call{
		method: http.MethodPost, path: "/api/v1/usage/check",
		body: `{"user":"alice","audioDuration":"3m","fileSize":"12Mi"}`,
	}, http.StatusOK, &check)
	if err != nil {
		return err
	}
	if err := equal(s, "allowed", check.Allowed, true); err != nil {
		return err
	}

	var problem struct {
		Reason string `json:"reason"`
	}
	err = s.curl(ctx, call{
		method: http.MethodPost, path: "/api/v1/admissions", headers: []string{"Idempotency-Key: conference"},
		body: `{"user":"alice","audioDuration":"40m","fileSize":"12Mi"}`,
	}, http.StatusTooManyRequests, &problem)
	if err != nil {
		return err
	}
	if err := equal(s, "the reason", problem.Reason, "CreditsExhausted"); err != nil {
		return err
	}
	return s.admitAndComplete(ctx)
}

func (s *story) admitAndComplete(ctx context.Context) error {
	admit := call{
		method: http.MethodPost, path: "/api/v1/admissions", headers: []string{"Idempotency-Key: interview-4"},
		body: `{"user":"alice","audioDuration":"3m","fileSize":"12Mi"}`,
	}
	var admitted, replayed, completed admission
	if err := s.curl(ctx, admit, http.StatusCreated, &admitted); err != nil {
		return err
	}
	if err := equal(s, "the state", admitted.State, "Admitted"); err != nil {
		return err
	}
	if err := s.curl(ctx, admit, http.StatusCreated, &replayed); err != nil {
		return err
	}
	if err := equal(s, "the id after a retry with the same key", replayed.ID, admitted.ID); err != nil {
		return err
	}

	s.vars["ID"], s.vars["LEASE"] = admitted.ID, admitted.LeaseSecret
	err := s.curl(ctx, call{
		method: http.MethodPost, path: "/api/v1/admissions/$ID/complete", bearer: "LEASE",
		body: `{"audioDuration":"2m45s"}`,
	}, http.StatusOK, &completed)
	if err != nil {
		return err
	}
	if err := equal(s, "what was charged", completed.Charged, "2.75"); err != nil {
		return err
	}

	var current struct {
		Used      string `json:"used"`
		Remaining string `json:"remaining"`
	}
	if err := s.curl(ctx, call{method: http.MethodGet, path: "/api/v1/usage/current?user=alice"}, http.StatusOK, &current); err != nil {
		return err
	}
	if err := equal(s, "used", current.Used, "10.75"); err != nil {
		return err
	}
	return equal(s, "remaining", current.Remaining, "19.25")
}
