// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"net/http"
)

// admission is what the story reads of the HTTP service's answers about one.
type admission struct {
	ID             string      `json:"id"`
	State          string      `json:"state"`
	LeaseToken     string      `json:"lease_token"`
	ChargedCredits json.Number `json:"charged_credits"`
}

// overHTTP plays a backend that transcribes without a Job.
func overHTTP(ctx context.Context, s *story) error {
	if err := s.set(ctx, "TOKEN", "kubectl -n transcripts create token transcriber --audience=usaged"); err != nil {
		return err
	}
	var check struct {
		CanProcess bool `json:"can_process"`
	}
	err := s.curl(ctx, call{
		method: http.MethodPost, path: "/api/v1/usage/check",
		body: `{"user_id":"mina","estimated_duration_seconds":180,"file_size_bytes":12582912}`,
	}, http.StatusOK, &check)
	if err != nil {
		return err
	}
	if err := equal(s, "can_process", check.CanProcess, true); err != nil {
		return err
	}

	var problem struct {
		Reason      string `json:"reason"`
		UpgradePlan struct {
			Name string `json:"name"`
		} `json:"upgrade_plan"`
	}
	err = s.curl(ctx, call{
		method: http.MethodPost, path: "/api/v1/admissions", headers: []string{"Idempotency-Key: conference"},
		body: `{"user_id":"mina","estimated_duration_seconds":2400,"file_size_bytes":12582912}`,
	}, http.StatusTooManyRequests, &problem)
	if err != nil {
		return err
	}
	if err := equal(s, "the reason", problem.Reason, "CreditsExhausted"); err != nil {
		return err
	}
	if err := equal(s, "the plan that would allow it", problem.UpgradePlan.Name, "starter"); err != nil {
		return err
	}
	return s.admitAndComplete(ctx)
}

func (s *story) admitAndComplete(ctx context.Context) error {
	admit := call{
		method: http.MethodPost, path: "/api/v1/admissions", headers: []string{"Idempotency-Key: interview-4"},
		body: `{"user_id":"mina","estimated_duration_seconds":180,"file_size_bytes":12582912}`,
	}
	var admitted, replayed, completed admission
	if err := s.curl(ctx, admit, http.StatusCreated, &admitted); err != nil {
		return err
	}
	if err := equal(s, "the state", admitted.State, "Admitted"); err != nil {
		return err
	}
	if err := s.curl(ctx, admit, http.StatusOK, &replayed); err != nil {
		return err
	}
	if err := equal(s, "the id after a retry with the same key", replayed.ID, admitted.ID); err != nil {
		return err
	}

	s.assign("ID", admitted.ID)
	s.assign("LEASE", admitted.LeaseToken)
	err := s.curl(ctx, call{
		method: http.MethodPost, path: "/api/v1/admissions/$ID/complete", authorization: "Lease $LEASE",
		body: `{"duration_seconds":165}`,
	}, http.StatusOK, &completed)
	if err != nil {
		return err
	}
	if err := equal(s, "the state", completed.State, "Settled"); err != nil {
		return err
	}
	if err := equal(s, "what was charged", completed.ChargedCredits, "2.75"); err != nil {
		return err
	}

	var current struct {
		Used      json.Number `json:"used_credits"`
		Remaining json.Number `json:"remaining_credits"`
	}
	if err := s.curl(ctx, call{method: http.MethodGet, path: "/api/v1/usage/current?user_id=mina"}, http.StatusOK,
		&current); err != nil {
		return err
	}
	if err := equal(s, "used", current.Used, "10.75"); err != nil {
		return err
	}
	return equal(s, "remaining", current.Remaining, "19.25")
}
