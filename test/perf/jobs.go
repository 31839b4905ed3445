// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	retry "k8s.io/client-go/tools/watch"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/testing/localstack"
)

const (
	// A burst: burstUsers users with burstSlots Jobs each, all of which may start.
	burstUsers, burstSlots = 200, 10
	// burstMakers create it: as many as the bare loop keeps up with on two processors. With more, the bare loop's own
	// Jobs wait for seconds, and what is measured is the API server.
	burstMakers = 4
	// A backlog: backlogUsers users with backlogJobs Jobs each, of which one may run. backlogRate end in a second for
	// backlogTime: some 500 run at once then, for 25 s each.
	backlogUsers, backlogJobs = 500, 10
	backlogRate               = 20
	backlogTime               = time.Minute
	// wakeups are the ends of one user's Jobs while nothing else happens.
	wakeups = 200
	// makers create Jobs and write their statuses at once, and that many workers does the bare loop have.
	makers = 16

	jobsPatience = 15 * time.Minute
	// What the figures may be, in their units: seconds, twice milliseconds, writes a Job, MiB.
	latencyBudget, wakeupBudget, handoverBudget, writesBudget, memoryBudget = 1, 100, 200, 3, 8
)

// jobField is an API server with a manager on a database of its own, whose plan has so many slots.
type jobField struct {
	*controlPlane

	clients   kubernetes.Interface
	processes *localstack.Processes
	dsn       string
	database  string
	stop      func() error
}

func (b *bench) jobField(ctx context.Context, slots int32) (_ context.Context, _ *jobField, err error) {
	f := &jobField{}
	var stops []func() error
	f.stop = func() (err error) {
		for _, stop := range slices.Backward(stops) {
			err = errors.Join(err, stop())
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.stop())
		}
	}()
	if f.controlPlane, err = b.controlPlane(); err != nil {
		return nil, nil, err
	}
	stops = append(stops, f.controlPlane.stop)
	if f.clients, err = kubernetes.NewForConfig(f.config); err != nil {
		return nil, nil, err
	}
	if f.database, err = b.lab.fresh(ctx); err != nil {
		return nil, nil, err
	}
	f.dsn = b.lab.server.DSN(f.database)
	if err := f.declare(ctx, slots); err != nil {
		return nil, nil, err
	}
	ctx, f.processes = localstack.NewProcesses(ctx, b.dir)
	stops = append(stops, f.processes.StopAll)
	return ctx, f, nil
}

func (f *jobField) declare(ctx context.Context, slots int32) error {
	store, err := ledgerdb.Open(ctx, f.dsn, postgres.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	service := metering.New(ledger.New(store, ledger.Options{}), store, access.NewSigner(store), metering.Options{})
	return prepare(ctx, f.client, service, slots, 2*wakeups)
}

// create makes a user's n-th Job, suspended as the webhook makes it; without a user one that is nobody's.
func (f *jobField) create(ctx context.Context, prefix, user string, n int) error {
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("%s-%s-%d", prefix, user, n), Labels: map[string]string{v1alpha1.UserLabel: user},
			Annotations: map[string]string{v1alpha1.AudioDurationAnnotation: "1m"},
		},
		Spec: batchv1.JobSpec{Suspend: new(true), Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever,
			Containers:    []corev1.Container{{Name: "main", Image: "example.com/transcriber"}},
		}}},
	}
	_, err := f.clients.BatchV1().Jobs(idleSpace).Create(ctx, job, metav1.CreateOptions{})
	return err
}

// fill creates a user's first Jobs one after the other, and many users' at once, each user's before the next round.
func (f *jobField) fill(ctx context.Context, makers int, prefix string, users, jobs int) error {
	return everyone(makers, users*jobs, func(_, i int) error {
		return f.create(ctx, prefix, "user-"+strconv.Itoa((i-1)%users+1), (i-1)/users)
	})
}

func (f *jobField) status(ctx context.Context, name string, status map[string]any) error {
	body, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	_, err = f.clients.BatchV1().Jobs(idleSpace).Patch(ctx, name, types.MergePatchType, body, metav1.PatchOptions{},
		"status")
	return err
}

// run says what a node would: that a pod of the Job runs.
func (f *jobField) run(ctx context.Context, name string) error {
	return f.status(ctx, name, map[string]any{"startTime": metav1.Now(), "active": 1, "ready": 1})
}

// end says that it has succeeded.
func (f *jobField) end(ctx context.Context, name string) error {
	now := metav1.Now()
	condition := func(kind batchv1.JobConditionType) batchv1.JobCondition {
		return batchv1.JobCondition{
			Type: kind, Status: corev1.ConditionTrue, LastProbeTime: now, LastTransitionTime: now,
		}
	}
	return f.status(ctx, name, map[string]any{
		"active": 0, "ready": 0, "succeeded": 1, "completionTime": now,
		"conditions": []batchv1.JobCondition{condition(batchv1.JobSuccessCriteriaMet), condition(batchv1.JobComplete)},
	})
}

// startBare un-suspends what is created from now on, as a client-go loop does that asks nobody.
func (f *jobField) startBare(ctx context.Context) (stop func() error, err error) {
	jobs := f.clients.BatchV1().Jobs(idleSpace)
	present, err := jobs.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	// A busy API server ends watches.
	w, err := retry.NewRetryWatcherWithContext(ctx, present.ResourceVersion,
		&cache.ListWatch{WatchFuncWithContext: jobs.Watch})
	if err != nil {
		cancel()
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	names := make(chan string, burstUsers*burstSlots)
	group.Go(func() error {
		defer close(names)
		for e := range w.ResultChan() {
			if job, ok := e.Object.(*batchv1.Job); ok && e.Type == watch.Added {
				names <- job.Name
			}
		}
		return nil
	})
	for range makers {
		group.Go(func() error {
			for name := range names {
				if _, err := jobs.Patch(ctx, name, types.MergePatchType, []byte(`{"spec":{"suspend":false}}`),
					metav1.PatchOptions{}); err != nil {
					return endedIs(ctx, err)
				}
			}
			return nil
		})
	}
	return func() error { cancel(); return group.Wait() }, nil
}

// burst creates the Jobs and returns how many start in a second, and how long half of them take from their creation.
func (f *jobField) burst(ctx context.Context, prefix string) (perSecond float64, p50 time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	seen, err := observe(ctx, f.clients, burstSlots, func(*batchv1.Job) {})
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if err := f.fill(ctx, burstMakers, prefix, burstUsers, burstSlots); err != nil {
		return 0, 0, err
	}
	const all = burstUsers * burstSlots
	if err := seen.wait(ctx, "all Jobs of the burst have started",
		func() bool { return seen.started == all }); err != nil {
		return 0, 0, err
	}
	var last time.Time
	var latencies []time.Duration
	seen.mu.Lock()
	defer seen.mu.Unlock()
	for _, l := range seen.jobs {
		latencies = append(latencies, l.started.Sub(l.created))
		if l.started.After(last) {
			last = l.started
		}
	}
	return all / last.Sub(began).Seconds(), percentile(latencies, 50), nil
}

// takesJobs returns once the manager has started a Job: that it fills its caches first is no part of a burst.
func (f *jobField) takesJobs(ctx context.Context) error {
	const user = "first"
	if err := f.create(ctx, user, user, 0); err != nil {
		return err
	}
	return localstack.Eventually(ctx, "the manager starts a Job", func(ctx context.Context) (bool, error) {
		job, err := f.clients.BatchV1().Jobs(idleSpace).Get(ctx, user+"-"+user+"-0", metav1.GetOptions{})
		return err == nil && !*job.Spec.Suspend, err
	})
}

func percentile(latencies []time.Duration, percent int) time.Duration {
	slices.Sort(latencies)
	return latencies[min(len(latencies)-1, len(latencies)*percent/100)]
}

// jobsBurst measures how fast a burst of Jobs starts that may all start, against a loop that asks nobody.
func (b *bench) jobsBurst(ctx context.Context) (err error) {
	ctx, f, err := b.jobField(ctx, burstSlots)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	b.announcef("%d Jobs of %d users in a burst, by a bare loop and by the manager", burstUsers*burstSlots,
		burstUsers)
	stopBare, err := f.startBare(ctx)
	if err != nil {
		return err
	}
	bare, bareP50, err := f.burst(ctx, "bare")
	if err = errors.Join(err, stopBare()); err != nil {
		return err
	}
	if err := f.clients.BatchV1().Jobs(idleSpace).DeleteCollection(ctx, metav1.DeleteOptions{
		PropagationPolicy: new(metav1.DeletePropagationBackground)}, metav1.ListOptions{}); err != nil {
		return err
	}
	if err := b.startManager(ctx, f.processes, f.kubeconfig, f.dsn); err != nil {
		return err
	}
	if err := f.takesJobs(ctx); err != nil {
		return err
	}
	ours, oursP50, err := f.burst(ctx, "ours")
	if err != nil {
		return err
	}
	b.report.progressf("bare: %.0f Jobs/s, p50 %s; ours: %.0f Jobs/s, p50 %s", bare, millis(bareP50), ours,
		millis(oursP50))
	b.report.figure(figure{name: "jobs_rate", ours: ours, baseline: bare, ratio: ours / bare, goal: 0.8})
	b.within("jobs_latency_p50", oursP50.Seconds(), latencyBudget)
	return nil
}

// within is a figure that has a budget; its ratio says how often ours fits into it.
func (b *bench) within(name string, ours, budget float64) {
	b.report.figure(figure{name: name, ours: ours, baseline: budget, ratio: budget / max(ours, 1e-9), goal: 1})
}

// announcef tells what is about to be measured, and what else the machine does.
func (b *bench) announcef(format string, args ...any) {
	average, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		average = nil
	}
	b.report.progressf("%s; load average %s", fmt.Sprintf(format, args...), bytes.TrimSpace(average))
}

// backlog are 5,000 Jobs of 500 users with one slot each, and what an observer has seen of them.
type backlog struct {
	*jobField

	seen *observer
	// started are the Jobs that run, and running those of them of which a pod runs, by their names, in that order.
	started, running chan string
}

// node runs the pods of what has started, as far as Jobs tell.
func (q *backlog) node(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for range makers {
		group.Go(func() error {
			for {
				select {
				case name := <-q.started:
					if err := q.run(ctx, name); err != nil {
						return endedIs(ctx, err)
					}
					q.running <- name
				case <-ctx.Done():
					return nil
				}
			}
		})
	}
	return group.Wait()
}

// jobsBacklog measures a manager with a long queue: how soon the next one starts after one has ended, what it writes,
// and what it keeps in memory. Then it is killed amid the queue, and all that wait are run.
func (b *bench) jobsBacklog(ctx context.Context) (err error) {
	ctx, f, err := b.jobField(ctx, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	if err := b.startManager(ctx, f.processes, f.kubeconfig, f.dsn); err != nil {
		return err
	}
	const most = wakeups + backlogUsers*backlogJobs
	q := &backlog{jobField: f, started: make(chan string, most), running: make(chan string, most)}
	// Who watches an API server keeps it from stopping.
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	if q.seen, err = observe(ctx, f.clients, 1, func(job *batchv1.Job) { q.started <- job.Name }); err != nil {
		return err
	}
	node := make(chan error, 1)
	go func() { node <- q.node(ctx); leave() }()
	defer func() { leave(); err = errors.Join(err, <-node) }()
	if err := b.wakeups(ctx, q); err != nil {
		return err
	}
	before, err := residentOf(f.processes)
	if err != nil {
		return err
	}
	const all = backlogUsers * backlogJobs
	b.announcef("%d Jobs of %d users with one slot each", all, backlogUsers)
	began := time.Now()
	if err := f.fill(ctx, makers, "wait", backlogUsers, backlogJobs); err != nil {
		return err
	}
	if err := q.seen.wait(ctx, "one Job of each user runs, and all others say that they wait",
		func() bool { return q.seen.placed == wakeups+all }); err != nil {
		return err
	}
	b.report.progressf("all run or wait after %.1fs", time.Since(began).Seconds())
	after, err := residentOf(f.processes)
	if err != nil {
		return err
	}
	if err := b.handover(ctx, q); err != nil {
		return err
	}
	b.within("jobs_memory_per_1000", float64(after-before)/(1<<20)/(all/1000), memoryBudget)
	b.report.progressf("the manager: %d MiB before, %d MiB with the backlog", before>>20, after>>20)
	return b.restart(ctx, q, wakeups+all)
}

// wakeups has one user's Jobs follow each other while nothing else happens.
func (b *bench) wakeups(ctx context.Context, q *backlog) error {
	b.announcef("%d Jobs of one user, one after the other", wakeups)
	for n := range wakeups {
		if err := q.create(ctx, "alone", "alone", n); err != nil {
			return err
		}
	}
	if err := q.seen.wait(ctx, "all but one say that they wait",
		func() bool { return q.seen.placed == wakeups }); err != nil {
		return err
	}
	for n := range wakeups {
		if err := q.seen.wait(ctx, "the next Job has started",
			func() bool { return q.seen.started > n }); err != nil {
			return err
		}
		if err := q.end(ctx, <-q.running); err != nil {
			return err
		}
	}
	if err := q.seen.wait(ctx, "all are settled",
		func() bool { return q.seen.closed == wakeups }); err != nil {
		return err
	}
	latencies, _ := q.handovers()
	b.report.progressf("from one Job's end to the next one's start: p50 %s, p99 %s", millis(percentile(latencies, 50)),
		millis(percentile(latencies, 99)))
	b.within("jobs_wakeup_p99_ms", percentile(latencies, 99).Seconds()*1000, wakeupBudget)
	q.seen.mu.Lock()
	defer q.seen.mu.Unlock()
	clear(q.seen.order) // what comes is measured for itself
	return nil
}

// handovers are the times from one Job's end to the start of the same user's next one, and the mean of the writes in
// the lives of those that have waited and are settled.
func (q *backlog) handovers() (latencies []time.Duration, writes float64) {
	q.seen.mu.Lock()
	defer q.seen.mu.Unlock()
	lives, written := 0, 0
	for _, order := range q.seen.order {
		for i, uid := range order {
			life := q.seen.jobs[uid]
			if i > 0 {
				latencies = append(latencies, life.started.Sub(q.seen.jobs[order[i-1]].ended))
			}
			if life.queued && life.closed {
				lives++
				written += life.writes
			}
		}
	}
	return latencies, float64(written) / float64(max(1, lives))
}

// handover has so many Jobs end in a second, those first that have run for longest.
func (b *bench) handover(ctx context.Context, q *backlog) error {
	b.announcef("%d Jobs end in a second, for %s", backlogRate, backlogTime)
	group, working := errgroup.WithContext(ctx)
	group.SetLimit(4 * makers)
	tick := time.NewTicker(time.Second / backlogRate)
	defer tick.Stop()
	ends := 0
	for began := time.Now(); time.Since(began) < backlogTime; ends++ {
		select {
		case <-tick.C:
		case <-working.Done():
			return errors.Join(group.Wait(), ctx.Err())
		}
		select {
		case name := <-q.running:
			group.Go(func() error { return q.end(working, name) })
		case <-working.Done():
			return errors.Join(group.Wait(), ctx.Err())
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := q.seen.wait(ctx, "who follows has started, and what has ended is settled", func() bool {
		return q.seen.started == wakeups+backlogUsers+ends && q.seen.closed == wakeups+ends
	}); err != nil {
		return err
	}
	latencies, writes := q.handovers()
	b.report.progressf("%d Jobs ended; from one's end to the next one's start: p50 %s, p90 %s, p99 %s", ends,
		millis(percentile(latencies, 50)), millis(percentile(latencies, 90)), millis(percentile(latencies, 99)))
	b.within("jobs_handover_p50_ms", percentile(latencies, 50).Seconds()*1000, handoverBudget)
	b.within("jobs_writes", writes, writesBudget)
	return nil
}

// restart kills the manager amid the queue while its Jobs go on to end, and has all that waits run by the next one.
func (b *bench) restart(ctx context.Context, q *backlog, all int) error {
	q.seen.mu.Lock()
	left := all - q.seen.started
	q.seen.mu.Unlock()
	b.announcef("the manager is killed with %d Jobs that wait, which then run one after the other", left)
	began := time.Now()
	draining, drained := context.WithCancel(ctx)
	group, draining := errgroup.WithContext(draining)
	for range makers {
		group.Go(func() error {
			for {
				select {
				case name := <-q.running:
					if err := q.end(draining, name); err != nil {
						return endedIs(draining, err)
					}
				case <-draining.Done():
					return nil
				}
			}
		})
	}
	err := q.processes.Restart(localstack.Manager, syscall.SIGKILL)
	if err == nil {
		err = q.seen.wait(draining, "all Jobs have run and are settled",
			func() bool { return q.seen.closed == all })
	}
	drained()
	if err := errors.Join(err, group.Wait()); err != nil {
		return err
	}
	b.report.progressf("%d Jobs run in %.1fs: %.0f in a second; at most %d of one user at once", left,
		time.Since(began).Seconds(), float64(left)/time.Since(began).Seconds(), q.seen.most)
	return b.inOrder(ctx, q, all)
}

// inOrder holds what was seen against the ledger: each user's Jobs have started in the order in which they came, and
// each was charged once.
func (b *bench) inOrder(ctx context.Context, q *backlog, all int) error {
	conn, err := pgx.Connect(ctx, q.dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, `SELECT c.id, c.arrived_seq FROM concurrent_processing AS c
		WHERE c.source = 'job' AND c.state = 'Settled'
			AND (SELECT count(*) FROM usage_tracking AS e WHERE e.admission_id = c.id) = 1`)
	if err != nil {
		return err
	}
	arrived := map[[16]byte]int64{}
	var id [16]byte
	var seq int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &seq}, func() error {
		arrived[id] = seq
		return nil
	}); err != nil {
		return err
	}
	if len(arrived) != all {
		return fmt.Errorf("%d Jobs are charged once in the ledger, want %d", len(arrived), all)
	}
	for user, order := range q.seen.order {
		last := int64(0)
		for _, uid := range order {
			id, err := convert.UID(uid)
			if err != nil {
				return err
			}
			if arrived[id] < last {
				return fmt.Errorf("Job %s of %s started after one that came later", q.seen.jobs[uid].name, user)
			}
			last = arrived[id]
		}
	}
	b.report.progressf("each of %d Jobs was admitted once, in its user's order, and charged once", all)
	return b.lab.checkInvariants(ctx, q.database)
}

// residentOf is the manager's resident memory in bytes.
func residentOf(processes *localstack.Processes) (int64, error) {
	pid, err := processes.PID(localstack.Manager)
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}
