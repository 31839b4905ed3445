// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cantonesescribe/usage-operator/internal/testing/localstack"
)

const (
	namespace         = "transcripts"
	userLabel         = "usage.cantonesescribe.io/user"
	stateAnnotation   = "usage.cantonesescribe.io/state"
	messageAnnotation = "usage.cantonesescribe.io/message"
)

func demo(ctx context.Context, out *printer, stack *localstack.Stack, customers *people, root string) error {
	s, err := newStory(out, stack, root)
	if err != nil {
		return err
	}
	return s.play(ctx, []step{
		{"A platform engineer declares the plans; all become Ready", declarePlans},
		{"A wrong plan is refused at once, with the field and the reason", refuseWrongPlan},
		{"Two users, and who may spend their credits", declareUsers},
		{"Three Jobs of a free user: one runs, two wait and say why, then they run one after the other", runOneByOne},
		{"A file over the plan's limit is refused", refuseLargeFile},
		{"A Job beyond what is left of 30 credits is refused; the refusal names the plan that would allow it",
			refuseLongAudio},
		{"A Job whose service account may not spend for that user is refused", refuseWrongAccount},
		{"A pro user runs five at once", runFiveAtOnce},
		{"The same over HTTP: check, admit, complete", overHTTP},
		{"A customer signs in, sees what is hers, and is told of a charge near her limit", customers.signIn},
		{"A team of two shares 100 credits; the refusal names the team", shareCredits},
		{"Under a root with one slot three users take turns by weight", takeTurns},
		{"Where everybody stands", finalStanding},
		{"What somebody used, and was refused: sums that equal the ledger", sumUp},
		{"A month passes: everybody is in a new period", passMonth},
		{"Every invariant of the ledger holds", checkInvariants},
	})
}

func declarePlans(ctx context.Context, s *story) error {
	if _, err := s.succeed(ctx, "kubectl apply -k config/samples"); err != nil {
		return err
	}
	if _, err := s.succeed(ctx, "kubectl wait --for=condition=Ready usageplans --all --timeout=30s"); err != nil {
		return err
	}
	table, err := s.succeed(ctx, "kubectl get usageplans")
	if err != nil {
		return err
	}
	if err := s.contains("the table", table, "free", "starter", "pro", "enterprise"); err != nil {
		return err
	}
	jobs, err := s.succeed(ctx, "kubectl -n usage-operator-system get cronjobs")
	if err != nil {
		return err
	}
	return equal(s, "the number of reset CronJobs", strings.Count(jobs, "0 2 * * *"), 4)
}

func refuseWrongPlan(ctx context.Context, s *story) error {
	return s.refused(ctx, "kubectl apply -f hack/demo/wrong-plan.yaml", "credits", "unlimited")
}

func declareUsers(ctx context.Context, s *story) error {
	if _, err := s.succeed(ctx, "kubectl apply -f hack/demo/users.yaml"); err != nil {
		return err
	}
	_, err := s.succeed(ctx, "kubectl wait --for=condition=Ready userquotas --all --timeout=30s")
	return err
}

func runOneByOne(ctx context.Context, s *story) error {
	if _, err := s.succeed(ctx, "kubectl apply -f hack/demo/three-jobs.yaml"); err != nil {
		return err
	}
	waiting, err := s.waitUntilOneRuns(ctx)
	if err != nil {
		return err
	}
	s.out.claim("one of three runs, two wait")
	if _, err = s.succeed(ctx, `kubectl -n transcripts get jobs -l usage.cantonesescribe.io/user=mina `+
		`-o custom-columns='NAME:.metadata.name,SUSPENDED:.spec.suspend,`+
		`STATE:.metadata.annotations.usage\.cantonesescribe\.io/state,`+
		`MESSAGE:.metadata.annotations.usage\.cantonesescribe\.io/message'`); err != nil {
		return err
	}
	description, err := s.succeed(ctx,
		"kubectl -n transcripts describe job "+waiting[0]+" | sed -n '/^Annotations/,/^Parallelism/p;/^Events/,$p'")
	if err != nil {
		return err
	}
	if err := s.contains("the description", description, "Queued",
		"the limit of 1 running at once is reached"); err != nil {
		return err
	}
	if err := s.refused(ctx, `kubectl -n transcripts patch job `+waiting[0]+` -p '{"spec":{"suspend":false}}'`,
		"suspend"); err != nil {
		return err
	}
	if _,
		err := s.succeed(
		ctx, "kubectl -n transcripts wait --for=condition=Complete job -l usage.cantonesescribe.io/user=mina "+
			"--timeout=90s"); err != nil {
		return err
	}
	if _, err := s.succeed(ctx, "kubectl -n transcripts get jobs -l usage.cantonesescribe.io/user=mina"); err != nil {
		return err
	}
	jobs, err := s.jobs(ctx, "mina")
	if err != nil {
		return err
	}
	return s.claimNoneOverlap(jobs)
}

// waitUntilOneRuns returns the names of the two that wait, once exactly one of mina's three Jobs is under way and the
// others carry the reason why they are not.
func (s *story) waitUntilOneRuns(ctx context.Context) (waiting []string, err error) {
	err = s.eventually(ctx, "one of mina's Jobs runs and the other two say why they wait",
		func(ctx context.Context) (bool, error) {
			jobs, err := s.jobs(ctx, "mina")
			if err != nil {
				return false, err
			}
			waiting = nil
			started := 0
			for _, job := range jobs {
				switch {
				case !*job.Spec.Suspend:
					started++
				case job.Annotations[stateAnnotation] == "Queued" && job.Annotations[messageAnnotation] != "":
					waiting = append(waiting, job.Name)
				}
			}
			if started > 1 {
				return false, fmt.Errorf("expected at most one of mina's Jobs to run, %d do", started)
			}
			return started == 1 && len(waiting) == 2, nil
		})
	return waiting, err
}

func (s *story) claimNoneOverlap(jobs []batchv1.Job) error {
	slices.SortFunc(jobs, func(a, b batchv1.Job) int { return a.Status.StartTime.Compare(b.Status.StartTime.Time) })
	for i := range len(jobs) - 1 {
		before, after := jobs[i], jobs[i+1]
		if after.Status.StartTime.Before(before.Status.CompletionTime) {
			return fmt.Errorf("expected %s to start after %s had ended (%s), it started at %s", after.Name, before.Name,
				before.Status.CompletionTime.Format(time.TimeOnly), after.Status.StartTime.Format(time.TimeOnly))
		}
	}
	s.out.claim("each started when the one before had ended")
	return nil
}

func refuseLargeFile(ctx context.Context, s *story) error {
	if err := s.refused(ctx, "kubectl apply -f hack/demo/large-file.yaml", "26Mi", "25Mi"); err != nil {
		return err
	}
	return s.claimNoJob(ctx, "concert")
}

func refuseLongAudio(ctx context.Context, s *story) error {
	if err := s.refused(ctx, "kubectl apply -f hack/demo/long-audio.yaml", "25", "30", "22", "starter"); err != nil {
		return err
	}
	return s.claimNoJob(ctx, "conference")
}

func refuseWrongAccount(ctx context.Context, s *story) error {
	if err := s.refused(ctx, "kubectl apply -f hack/demo/wrong-account.yaml", "spend", "mina"); err != nil {
		return err
	}
	return s.claimNoJob(ctx, "not-mine")
}

func (s *story) claimNoJob(ctx context.Context, name string) error {
	_, err := s.clients.BatchV1().Jobs(namespace).Get(ctx, name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("expected no Job %s to exist, got error %w", name, err)
	}
	s.out.claim("there is no Job " + name)
	return nil
}

func runFiveAtOnce(ctx context.Context, s *story) error {
	if _, err := s.succeed(ctx, "kubectl apply -f hack/demo/five-jobs.yaml"); err != nil {
		return err
	}
	err := s.eventually(ctx, "all five of petra's Jobs run at the same time", func(ctx context.Context) (bool, error) {
		jobs, err := s.jobs(ctx, "petra")
		if err != nil {
			return false, err
		}
		running := 0
		for _, job := range jobs {
			if job.Status.CompletionTime != nil {
				return false, fmt.Errorf("%s was over before all five ran", job.Name)
			}
			running += int(job.Status.Active)
		}
		return running == 5, nil
	})
	if err != nil {
		return err
	}
	if _, err := s.succeed(ctx, "kubectl -n transcripts get jobs -l usage.cantonesescribe.io/user=petra"); err != nil {
		return err
	}
	s.out.claim("five run at the same time")
	_,
		err = s.succeed(ctx,
		"kubectl -n transcripts wait --for=condition=Complete job -l usage.cantonesescribe.io/user=petra --timeout=90s")
	return err
}

func finalStanding(ctx context.Context, s *story) error {
	// Three Jobs of 2, 2.5 and 3.5 minutes and 2.75 minutes over HTTP; five Jobs of 10 to 14 minutes.
	want := map[string]string{"mina": "24.75", "petra": "60"}
	err := s.eventually(ctx, "the quotas' status has caught up with the ledger",
		func(ctx context.Context) (bool, error) {
			got, err := s.standing(ctx)
			if err != nil {
				return false, err
			}
			return got["mina"].used == want["mina"] && got["petra"].used == want["petra"], nil
		})
	if _, showErr := s.succeed(ctx, "kubectl get userquotas"); err == nil {
		err = showErr
	}
	if err != nil {
		return err
	}
	s.out.claim(
		"mina has used 24.75 credits (2 + 2.5 + 3.5 in Jobs, 2.75 and 14 over HTTP), petra 60 (10 + 11 + 12 + 13 + 14)")
	_, err = s.succeed(ctx, "kubectl get usageplans")
	return err
}

// sumUp rolls up what was used, as a CronJob does every five minutes, and asks for it.
func sumUp(ctx context.Context, s *story) error {
	if _, err := s.succeed(ctx, "usage-batch rollup"); err != nil {
		return err
	}
	sums, err := s.succeed(ctx,
		`curl -sS -H "Authorization: Bearer $TOKEN" "$USAGED/api/v1/analytics/usage?user_id=mina&by=type"`)
	if err != nil {
		return err
	}
	// Three Jobs and two pieces of work over HTTP, as above.
	return s.contains("the answer", sums, `"credits":24.75`, `"usage_type":"transcription"`)
}

func checkInvariants(ctx context.Context, s *story) error {
	_, err := s.succeed(ctx, "usage-batch check")
	return err
}

func (s *story) jobs(ctx context.Context, user string) ([]batchv1.Job, error) {
	list, err := s.clients.BatchV1().Jobs(namespace).List(ctx,
		metav1.ListOptions{LabelSelector: userLabel + "=" + user})
	if err != nil {
		return nil, err
	}
	for _, job := range list.Items {
		for _, c := range job.Status.Conditions {
			if c.Type == batchv1.JobFailed && c.Status == corev1.ConditionTrue {
				return nil, fmt.Errorf("job %s failed: %s", job.Name, c.Message)
			}
		}
	}
	return list.Items, nil
}

// eventually is localstack's, with a limit that suits somebody who watches.
func (s *story) eventually(ctx context.Context, what string, condition func(context.Context) (bool, error)) error {
	limit := 45 * time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, limit,
		fmt.Errorf("expected within %s: %s", limit, strings.TrimSpace(what)))
	defer cancel()
	return localstack.Eventually(ctx, what, condition)
}
