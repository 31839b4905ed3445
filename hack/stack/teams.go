// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
)

// fill is the command that makes one Job of the file that is to be filled in.
func fill(name, user, length string) string {
	return fmt.Sprintf("sed 's/NAME/%s/; s/USER/%s/; s/LENGTH/%s/' hack/demo/team-job.yaml", name, user, length)
}

// shareCredits plays a team that pays for two members: what one of them holds the other cannot have.
func shareCredits(ctx context.Context, s *story) error {
	for _, line := range []string{
		"kubectl apply -f hack/demo/teams.yaml",
		"kubectl wait --for=condition=Ready usageteams,userquotas --all --timeout=30s",
		fill("report", "lena", "60m") + " | kubectl create -f -",
	} {
		if _, err := s.succeed(ctx, line); err != nil {
			return err
		}
	}
	if err := s.untilRunning(ctx, "lena"); err != nil {
		return err
	}
	if err := s.refused(ctx, fill("debate", "omar", "50m")+" | kubectl create -f -", `team "newsroom"`,
		"40 of 100 remain"); err != nil {
		return err
	}
	if _, err := s.succeed(ctx, fill("debate", "omar", "40m")+" | kubectl create -f -"); err != nil {
		return err
	}
	if _, err := s.succeed(ctx, "kubectl -n transcripts wait --for=condition=Complete job/report job/debate "+
		"--timeout=60s"); err != nil {
		return err
	}
	err := s.eventually(ctx, "the team's status shows 100 of 100 credits used",
		func(ctx context.Context) (bool, error) {
			a, err := s.quietly(ctx, "kubectl get usageteam newsroom "+
				"-o jsonpath='{.status.members} {.status.usage.used} {.status.usage.remaining}'")
			return a.text == "2 100 0", err
		})
	if _, showErr := s.succeed(ctx, "kubectl get usageteams"); err == nil {
		err = showErr
	}
	return err
}

func (s *story) untilRunning(ctx context.Context, user string) error {
	return s.eventually(ctx, user+"'s Job runs", func(ctx context.Context) (bool, error) {
		jobs, err := s.jobs(ctx, user)
		return len(jobs) == 1 && !*jobs[0].Spec.Suspend, err
	})
}

// takeTurns plays a root with one slot: three users who all wait are served by the weights of their plans.
func takeTurns(ctx context.Context, s *story) error {
	for _, line := range []string{
		"kubectl apply -f hack/demo/platform.yaml",
		"kubectl wait --for=condition=Ready usageteams/platform --timeout=30s",
	} {
		if _, err := s.succeed(ctx, line); err != nil {
			return err
		}
	}
	users, weights := []string{"uma", "vito", "wanda"}, map[string]int{"uma": 1, "vito": 1, "wanda": 2}
	var jobs []string
	for _, user := range users {
		for n := range 2 * weights[user] {
			jobs = append(jobs, fill(fmt.Sprintf("%s-%d", user, n+1), user, "1m")+"; echo ---")
		}
	}
	if _, err := s.succeed(ctx, "("+strings.Join(jobs, "; ")+") | kubectl create -f -"); err != nil {
		return err
	}
	if _, err := s.succeed(ctx, "kubectl -n transcripts wait --for=condition=Complete job "+
		"-l 'usage.cantonesescribe.io/user in (uma,vito,wanda)' --timeout=120s"); err != nil {
		return err
	}
	var all []batchv1.Job
	for _, user := range users {
		of, err := s.jobs(ctx, user)
		if err != nil {
			return err
		}
		all = append(all, of...)
	}
	if err := s.claimNoneOverlap(all); err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b batchv1.Job) int { return a.Status.StartTime.Compare(b.Status.StartTime.Time) })
	turns := map[string]int{}
	var order []string
	for i, job := range all {
		order = append(order, job.Labels[userLabel])
		// The first one found nobody waiting, so it was nobody's turn.
		if i >= 1 && i < 5 {
			turns[job.Labels[userLabel]]++
		}
	}
	s.out.claim("they started in this order: " + strings.Join(order, ", "))
	if turns["uma"] != 1 || turns["vito"] != 1 || turns["wanda"] != 2 {
		return fmt.Errorf("expected one of uma's, one of vito's and two of wanda's among the four after the first, "+
			"got %v", turns)
	}
	s.out.claim("of the four after the first two are wanda's, whose plan has weight 2")
	if _, err := s.succeed(ctx, "kubectl get usageteams"); err != nil {
		return err
	}
	_, err := s.succeed(ctx, "kubectl delete usageteam platform")
	return err
}
