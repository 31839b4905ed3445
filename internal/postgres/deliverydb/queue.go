// SPDX-License-Identifier: Apache-2.0

package deliverydb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/cantonesescribe/usage-operator/internal/delivery"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
)

const (
	// The queues of River: what is about to fail or takes long is aside, so that it keeps nothing else waiting.
	queuePrompt = "prompt"
	queueAside  = "aside"

	// queueConns is the size of River's own pool: its maintenance and fetching, besides a connection to listen.
	queueConns = 3
	// jobTimeout is above what an attempt and what is written of it may take, and rescueAfter when another process
	// takes over what one that has ended was at.
	jobTimeout  = 40 * time.Second
	rescueAfter = 90 * time.Second
	// Latency: a process that hears of a job by LISTEN fetches it no sooner than this after the fetch before, and one
	// that does not hear polls.
	fetchCooldown = 50 * time.Millisecond
	fetchPoll     = 2 * time.Second
	// stopTimeout is how long attempts under way may take to end.
	stopTimeout = 12 * time.Second
	// keepCompleted is short: what was done is told by deliveries.
	keepCompleted = 10 * time.Minute
)

// attemptArgs are what a job has to do.
type attemptArgs struct {
	ID       delivery.ID `json:"id"`
	QueuedAt time.Time   `json:"queued_at"`
}

// Kind implements river.JobArgs.
func (attemptArgs) Kind() string { return "delivery_attempt" }

// job is one that is about to be made.
type job struct {
	args  attemptArgs
	aside bool
}

// Queue works on attempts, with others who work on the same database.
type Queue struct {
	client *river.Client[pgx.Tx]
	pool   *pgxpool.Pool
	worker *worker
}

// OpenQueue returns what works on attempts, at so many at once, by connections of its own. dsn must lead to the server
// itself, for LISTEN. The store makes jobs for it from now on.
func (s *Store) OpenQueue(ctx context.Context, dsn string, workers int, log *slog.Logger) (*Queue, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("database URL of the queue: %w", err)
	}
	config.MaxConns = queueConns
	config.MinConns = 0
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, postgres.MapError(err)
	}
	w := &worker{}
	bundle := river.NewWorkers()
	if err := river.AddWorkerSafely(bundle, w); err != nil {
		pool.Close()
		return nil, err
	}
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Schema: postgres.QueueSchema,
		Queues: map[string]river.QueueConfig{
			queuePrompt: {MaxWorkers: workers}, queueAside: {MaxWorkers: workers},
		},
		Workers:       bundle,
		Logger:        log,
		JobTimeout:    jobTimeout,
		FetchCooldown: fetchCooldown, FetchPollInterval: fetchPoll,
		RescueStuckJobsAfter: rescueAfter, CompletedJobRetentionPeriod: keepCompleted,
		// Its tables stay small, and rebuilding indexes takes rights that the programs need not have.
		ReindexerSchedule: river.NeverSchedule(),
		SoftStopTimeout:   stopTimeout,
	})
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("queue of deliveries: %w", err)
	}
	s.queue = &Queue{client: client, pool: pool, worker: w}
	return s.queue, nil
}

// Run works on attempts until ctx ends, and waits for those under way. It closes the queue's connections.
func (q *Queue) Run(ctx context.Context, attempt func(context.Context, delivery.Job) error) error {
	defer q.pool.Close()
	q.worker.attempt = attempt
	for {
		err := q.client.Start(ctx)
		if err == nil || ctx.Err() != nil {
			break
		}
		// The database is away: what is to be done waits for it as well.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(fetchPoll):
		}
	}
	<-ctx.Done()
	if stopped := q.client.Stopped(); stopped != nil {
		<-stopped
	}
	return nil
}

// insert makes jobs in a transaction.
func (q *Queue) insert(ctx context.Context, tx pgx.Tx, jobs []job) error {
	if len(jobs) == 0 {
		return nil
	}
	if q == nil {
		return errors.New("no attempts are made by this process")
	}
	params := make([]river.InsertManyParams, len(jobs))
	for i, j := range jobs {
		queue := queuePrompt
		if j.aside {
			queue = queueAside
		}
		params[i] = river.InsertManyParams{Args: j.args, InsertOpts: &river.InsertOpts{Queue: queue}}
	}
	_, err := q.client.InsertManyFastTx(ctx, tx, params)
	return err
}

// worker hands jobs on. That an attempt fails is no failure of its job, which only an error of ours is.
type worker struct {
	river.WorkerDefaults[attemptArgs]

	attempt func(context.Context, delivery.Job) error
}

// Work implements river.Worker.
func (w *worker) Work(ctx context.Context, j *river.Job[attemptArgs]) error {
	return w.attempt(ctx, delivery.Job{ID: j.Args.ID, QueuedAt: j.Args.QueuedAt})
}
