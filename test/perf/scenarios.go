// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"regexp"
	"slices"
)

// scenario measures some figures.
type scenario struct {
	figures []string
	measure func(*bench, context.Context) error
	// onDemand scenarios take long and run only where they are asked for.
	onDemand bool
	// cluster scenarios need an API server, for which controlPlane says where its binaries are.
	cluster bool
}

// scenarios in the order in which they run: those of one database side by side.
var scenarios = []scenario{
	{figures: []string{"admit_engine_uniform_256", "admit_engine_uniform_256_best"}, measure: (*bench).engineUniform},
	{figures: []string{"admit_engine_uniform_16", "admit_engine_uniform_1"}, measure: (*bench).engineFew},
	{figures: []string{"admit_engine_zipf_256"}, measure: (*bench).engineZipf},
	{figures: []string{"admit_engine_hot_256_best"}, measure: (*bench).engineHot},
	{figures: []string{"admit_http_uniform_256", "admit_http_uniform_256_best"}, measure: (*bench).httpUniform},
	{figures: []string{"admit_http_uniform_256_p50_ms", "admit_http_uniform_256_p99_ms"},
		measure: (*bench).httpOpenLoop},
	{figures: []string{"admit_http_uniform_16", "admit_http_uniform_1"}, measure: (*bench).httpFew},
	{figures: []string{"admit_http_zipf_256"}, measure: (*bench).httpZipf},
	{figures: []string{"check_http", "check_http_max_age"}, measure: (*bench).checkHTTP},
	{figures: []string{"rate_limited_refusal_us", "rate_limited_flood_p99_ms", "rate_limited_flood_bare_p99_ms"},
		measure: (*bench).rateLimits},
	{figures: []string{"jwt_check"}, measure: (*bench).jwtCheck},
	{figures: []string{"stream_10k_memory_kib", "stream_10k_p99_ms", "stream_told_p99_ms"},
		measure: (*bench).streams10k},
	{figures: []string{"pages_10k_cost", "pages_10k_shown_cost"}, measure: (*bench).pages10k},
	{figures: []string{"admit_http_hot_256_best"}, measure: (*bench).httpHot},
	{figures: []string{"admit_http_replicas_uniform_256", "admit_http_replicas_hot_256_best"},
		measure: (*bench).httpReplicas},
	{figures: []string{"alerts_cost"}, measure: (*bench).alertsCost},
	{figures: []string{"refusal_recording_cost"}, measure: (*bench).refusalRecording},
	{figures: []string{"delivery_first_attempt_p99_ms", "delivery_dead_endpoint"}, measure: (*bench).deliveries},
	{figures: []string{"tree_none_http_256"}, measure: (*bench).treeNone},
	{figures: []string{"tree_team10_http_256"}, measure: (*bench).treeTeams},
	{figures: []string{"tree_root_http_256", "tree_root_replicas_http_256"}, measure: (*bench).treeRoot},
	{figures: []string{"admit_engine_snapshot_uniform_256", "admit_engine_snapshot_hot_256"},
		measure: (*bench).snapshot},
	{figures: []string{"queue_depth_turnover", "queue_depth_bystanders"}, measure: (*bench).queueDepth},
	{figures: []string{"fair_jain_1000"}, measure: (*bench).fairJain},
	{figures: []string{"fair_weights"}, measure: (*bench).fairByWeight},
	{figures: []string{"estimate_coverage"}, measure: (*bench).estimateCoverage},
	{figures: []string{"forecast_1m_s"}, measure: (*bench).forecasts},
	{figures: []string{"rollup_rebuild_10m_s", "rollup_beside_load"}, measure: (*bench).rollups},
	{figures: []string{"analytics_p95_ms"}, measure: (*bench).analytics},
	{figures: []string{"admit_engine_full_256"}, measure: (*bench).full},
	{figures: []string{"reset_1m", "reset_admission_p99_ms"}, measure: (*bench).measureResets},
	{figures: []string{"month_boundary_rate", "month_boundary_p99"}, measure: (*bench).measureBoundary},
	{figures: []string{"jobs_rate", "jobs_latency_p50"}, measure: (*bench).jobsBurst, cluster: true},
	{figures: []string{"jobs_wakeup_p99_ms", "jobs_handover_p50_ms", "jobs_writes", "jobs_memory_per_1000"},
		measure: (*bench).jobsBacklog, cluster: true},
	{figures: []string{"poll_idle_cpu", "poll_idle_cpu_database"}, measure: (*bench).idle, cluster: true},
	{figures: []string{"memory_http_soak"}, measure: (*bench).soak, onDemand: true},
}

func choose(only *regexp.Regexp, soak bool) []scenario {
	var chosen []scenario
	for _, s := range scenarios {
		if (!s.onDemand || soak) && slices.ContainsFunc(s.figures, only.MatchString) {
			chosen = append(chosen, s)
		}
	}
	return chosen
}

// spread is how the pairs fall on the users.
type spread int

// uniform: all users come equally often, and each client has users of its own like the backends of a service that is
// split by users. zipf: the n-th user comes in proportion to 1/n^1.1, from any client. hot: it is always the same user.
const (
	uniform spread = iota
	zipf
	hot
)

const zipfExponent = 1.1

func (s spread) String() string { return [...]string{"uniform", "zipf", "hot"}[s] }

func (b *bench) engineUniform(ctx context.Context) error {
	r, err := b.engineTrial(ctx, many, uniform)
	if err != nil {
		return err
	}
	return b.compare(ctx, r, many, uniform, "admit_engine_uniform_256", 6, "admit_engine_uniform_256_best", 2)
}

func (b *bench) engineFew(ctx context.Context) error {
	for _, f := range []struct {
		name    string
		clients int
		goal    float64
	}{{"admit_engine_uniform_16", some, 1}, {"admit_engine_uniform_1", one, 0.8}} {
		r, err := b.engineTrial(ctx, f.clients, uniform)
		if err != nil {
			return err
		}
		if err := b.compare(ctx, r, f.clients, uniform, f.name, f.goal, "", 0); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) engineZipf(ctx context.Context) error {
	r, err := b.engineTrial(ctx, many, zipf)
	if err != nil {
		return err
	}
	return b.compare(ctx, r, many, zipf, "admit_engine_zipf_256", 6, "", 0)
}

func (b *bench) engineHot(ctx context.Context) error {
	r, err := b.engineTrial(ctx, many, hot)
	if err != nil {
		return err
	}
	return b.compare(ctx, r, many, hot, "", 0, "admit_engine_hot_256_best", 4)
}

func (b *bench) httpUniform(ctx context.Context) error {
	r, err := b.httpTrial(ctx, "HTTP", b.load(many, uniform))
	if err != nil {
		return err
	}
	return b.compare(ctx, r, many, uniform, "admit_http_uniform_256", 3, "admit_http_uniform_256_best", 1)
}

// httpOpenLoop has both sides take the same rate: half of what naive can.
func (b *bench) httpOpenLoop(ctx context.Context) error {
	naive, err := b.naive(ctx, many, uniform)
	if err != nil {
		return err
	}
	l := b.load(many, uniform)
	l.rate = naive.perSecond / 2
	baseline, err := b.baseline(ctx, "pgbench "+prepared+", open loop", prepared, l)
	if err != nil {
		return err
	}
	r, err := b.httpTrial(ctx, "HTTP, open loop", l)
	if err != nil {
		return err
	}
	b.report.latency("admit_http_uniform_256_p50_ms", r.p50, baseline.p50, 1)
	b.report.latency("admit_http_uniform_256_p99_ms", r.p99, baseline.p99, 1)
	return nil
}

func (b *bench) httpFew(ctx context.Context) error {
	for _, f := range []struct {
		name    string
		clients int
		goal    float64
	}{{"admit_http_uniform_16", some, 1}, {"admit_http_uniform_1", one, 0.8}} {
		r, err := b.httpTrial(ctx, "HTTP", b.load(f.clients, uniform))
		if err != nil {
			return err
		}
		if err := b.compare(ctx, r, f.clients, uniform, f.name, f.goal, "", 0); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) httpZipf(ctx context.Context) error {
	r, err := b.httpTrial(ctx, "HTTP", b.load(many, zipf))
	if err != nil {
		return err
	}
	return b.compare(ctx, r, many, zipf, "admit_http_zipf_256", 3, "", 0)
}

func (b *bench) httpHot(ctx context.Context) error {
	r, err := b.httpTrial(ctx, "HTTP", b.load(many, hot))
	if err != nil {
		return err
	}
	return b.compare(ctx, r, many, hot, "", 0, "admit_http_hot_256_best", 4)
}

// replicas is how many processes of usaged share the database and the clients.
const replicas = 3

func (b *bench) httpReplicas(ctx context.Context) error {
	return b.withReplicas(ctx, func(ctx context.Context, t *overHTTP, books *books) error {
		r, err := b.try(ctx, "HTTP, three replicas", t, b.load(many, uniform), books)
		if err != nil {
			return err
		}
		if err := b.compare(ctx, r, many, uniform, "admit_http_replicas_uniform_256", 3, "", 0); err != nil {
			return err
		}
		if r, err = b.try(ctx, "HTTP, three replicas", t, b.load(many, hot), books); err != nil {
			return err
		}
		return b.compare(ctx, r, many, hot, "", 0, "admit_http_replicas_hot_256_best", 4)
	})
}
