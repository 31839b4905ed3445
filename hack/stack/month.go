// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// passMonth moves the time of all programs over the end of everybody's period. The programs of the demo are built with
// the tag testclock, which images are not.
func passMonth(ctx context.Context, s *story) error {
	s.out.text("  The programs of this demo take the time from a file, in which we write that they are 31 days ahead.")
	for _, line := range []string{
		"echo 744h > $USAGE_TEST_CLOCK",
		"usage-batch reset --plan free",
		"usage-batch reset --plan pro",
	} {
		if _, err := s.succeed(ctx, line); err != nil {
			return err
		}
	}
	last := map[string]string{"mina": "24.75", "petra": "60"}
	err := s.eventually(ctx, "the quotas' status shows the new period", func(ctx context.Context) (bool, error) {
		standing, err := s.standing(ctx)
		if err != nil {
			return false, err
		}
		for user, want := range last {
			if got := standing[user]; got.used != "0" || got.last != want {
				return false, nil
			}
		}
		return true, nil
	})
	if _, showErr := s.succeed(ctx, "kubectl get userquotas -o wide"); err == nil {
		err = showErr
	}
	if err != nil {
		return err
	}
	s.out.claim("nothing is used of the new period; of the last one mina used 24.75 credits and petra 60")
	history, err := s.succeed(ctx,
		`curl -sS -H "Authorization: Bearer $TOKEN" "$USAGED/api/v1/usage/history?user_id=mina"`)
	if err != nil {
		return err
	}
	return s.contains("the history", history, `"state":"Open"`, `"state":"Closed"`, `"used_credits":24.75`)
}

// standing is what a UserQuota's status says about use.
type standing struct{ used, last string }

func (s *story) standing(ctx context.Context) (map[string]standing, error) {
	a, err := s.quietly(ctx, "kubectl get userquotas -o json")
	if err != nil || a.code != 0 {
		return nil, errors.Join(err, errors.New(a.text))
	}
	var list struct {
		Items []struct {
			Spec struct {
				UserID string `json:"userID"`
			} `json:"spec"`
			Status struct {
				Usage struct {
					Used string `json:"used"`
				} `json:"usage"`
				LastPeriod struct {
					Used string `json:"used"`
				} `json:"lastPeriod"`
			} `json:"status"`
		} `json:"items"`
	}
	if err := json.Unmarshal([]byte(a.text), &list); err != nil {
		return nil, fmt.Errorf("kubectl get userquotas: %w", err)
	}
	out := map[string]standing{}
	for _, item := range list.Items {
		out[item.Spec.UserID] = standing{used: item.Status.Usage.Used, last: item.Status.LastPeriod.Used}
	}
	return out, nil
}
