// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	openapi_types "github.com/oapi-codegen/runtime/types"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// liveEvery is how often operators are told, and liveFresh how old what they are told may be.
	liveEvery = time.Second
	liveFresh = liveEvery * 9 / 10
	// workTimeout bounds the count of what runs and waits.
	workTimeout = 2 * time.Second

	labelReason = "reason"
)

// live counts what this process answers, for its metrics and for operators who look on.
type live struct {
	replica string
	work    func(ctx context.Context) (metering.Work, error)
	gauges  func(ctx context.Context) (metering.Gauge, error)
	open    *openStreams

	inFlight                   atomic.Int64
	admitted, queued, complete atomic.Int64
	// credits are what was charged, in units of 1/60000.
	credits atomic.Int64
	refused map[quota.Reason]*atomic.Int64

	mu sync.Mutex
	// frame is the last event, made at that time, when the counts were these.
	frame  []byte
	at     time.Time
	before liveCounts
}

// liveCounts are the counts at one moment.
type liveCounts struct {
	admitted, queued, complete, credits int64
	refused                             map[quota.Reason]int64
}

func newLive(
	replica string, work func(ctx context.Context) (metering.Work, error),
	gauges func(ctx context.Context) (metering.Gauge, error), open *openStreams, registry prometheus.Registerer,
) *live {
	l := &live{replica: replica, work: work, gauges: gauges, open: open, at: time.Now(),
		refused: map[quota.Reason]*atomic.Int64{}}
	show := func(name, help string, labels prometheus.Labels, n *atomic.Int64, unit float64) {
		registry.MustRegister(prometheus.NewCounterFunc(
			prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels},
			func() float64 { return float64(n.Load()) / unit }))
	}
	answers := func(outcome string, reason quota.Reason, n *atomic.Int64) {
		show("usage_admission_answers_total",
			"What this process has answered to requests for an admission, by outcome and, where it refused, by reason.",
			prometheus.Labels{"outcome": outcome, labelReason: string(reason)}, n, 1)
	}
	answers("admitted", "", &l.admitted)
	answers("queued", "", &l.queued)
	for _, info := range quota.Reasons {
		n := new(atomic.Int64)
		l.refused[info.Reason] = n
		answers("refused", info.Reason, n)
	}
	show("usage_completions_total", "Reports of what an admission used that this process has answered.", nil,
		&l.complete, 1)
	show("usage_completed_credits_total", "Credits that the answers to these reports named as charged.", nil,
		&l.credits, float64(quota.Credit))
	return l
}

// answered counts the answer to a request for an admission. What was made before is not liveCounts again.
func (l *live) answered(res *metering.AdmitResult) {
	switch {
	case res.Admission == nil:
		if n := l.refused[res.Decision.Reason]; n != nil {
			n.Add(1)
		}
	case !res.Created:
	case res.Admission.State == quota.Queued:
		l.queued.Add(1)
	default:
		l.admitted.Add(1)
	}
}

// completed counts the answer to a report.
func (l *live) completed(adm *ledger.Admission, err error) {
	if err != nil {
		return
	}
	l.complete.Add(1)
	if adm.Actual != nil {
		l.credits.Add(int64(*adm.Actual))
	}
}

func (l *live) counts() liveCounts {
	c := liveCounts{admitted: l.admitted.Load(), queued: l.queued.Load(), complete: l.complete.Load(),
		credits: l.credits.Load(), refused: make(map[quota.Reason]int64, len(l.refused))}
	for reason, n := range l.refused {
		c.refused[reason] = n.Load()
	}
	return c
}

// event returns what operators are told now: the same to all who look on.
func (l *live) event(ctx context.Context) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	over := now.Sub(l.at)
	if l.frame != nil && over < liveFresh {
		return l.frame
	}
	is, was := l.counts(), l.before
	rate := func(is, was int64, unit float64) Number {
		return Number(fmt.Sprintf("%.3f", float64(is-was)/unit/max(over.Seconds(), 1e-3)))
	}
	out := LiveCounters{
		AsOf: now.UTC(), Replica: l.replica, Seconds: Number(fmt.Sprintf("%.3f", over.Seconds())),
		Admitted: rate(is.admitted, was.admitted, 1), Queued: rate(is.queued, was.queued, 1),
		Completed:      rate(is.complete, was.complete, 1),
		ChargedCredits: rate(is.credits, was.credits, float64(quota.Credit)),
		InFlight:       l.inFlight.Load(), Streams: int64(l.open.count()), RefusedByReason: map[string]Decimal{},
	}
	refused := int64(0)
	for reason, n := range is.refused {
		if d := n - was.refused[reason]; d > 0 {
			refused += d
			out.RefusedByReason[string(reason)] = rate(d, 0, 1)
		}
	}
	out.Refused = rate(refused, 0, 1)
	ctx, cancel := context.WithTimeout(ctx, workTimeout)
	defer cancel()
	if work, err := l.work(ctx); err == nil {
		out.DatabaseUp, out.Running, out.Waiting = true, &work.Running, &work.Queued
	}
	if gauge, err := l.gauges(ctx); err == nil {
		out.Today = &LiveToday{Day: openapi_types.Date{Time: gauge.Day}, Uses: gauge.Uses,
			Credits: credits(gauge.Credits)}
		out.Ended = &LiveEnded{Since: gauge.Since, Ended: gauge.Ended, Failed: gauge.Failed}
		if gauge.Ended > 0 {
			out.Ended.FailedPercent = new(percentOf(gauge.Failed, gauge.Ended))
		}
	}
	data, err := json.Marshal(out)
	if err != nil {
		return l.frame
	}
	l.frame, l.at, l.before = sseEvent(eventLive, "", data), now, is
	return l.frame
}

// StreamLive implements GET /api/v1/live.
func (s *server) StreamLive(ctx context.Context, _ StreamLiveRequestObject) (StreamLiveResponseObject, error) {
	right := func(ctx context.Context) error { return s.mayAll(ctx, access.ResourceSystem) }
	if err := right(ctx); err != nil {
		return nil, err
	}
	if err := s.serving(ctx); err != nil {
		return nil, unavailable(retryNow, "this replica is about to end: another one answers")
	}
	leave, err := s.open.enter("the service")
	if err != nil {
		return nil, err
	}
	next := make(chan struct{}, 1)
	tick := time.AfterFunc(liveEvery, func() { next <- struct{}{} }) // begun again only once that was taken
	return &stream{server: s, ctx: ctx, right: right, next: next, first: s.live.event(ctx),
		stop: func() { tick.Stop(); leave() },
		look: func(ctx context.Context) ([]byte, *StreamEnd) {
			tick.Reset(liveEvery)
			return s.live.event(ctx), nil
		}}, nil
}
