// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// GaugeFresh is how old a Gauge may be.
	GaugeFresh = time.Second
	// gaugeTimeout bounds one reading. The first one may have to go through what was recorded since the last rollup.
	gaugeTimeout = 30 * time.Second
	// RecentWork is over how many whole minutes, besides the one that has begun, it is counted what work came to.
	RecentWork = 15 * time.Minute
	// gaugeSlack is by how much an event may be recorded earlier than its transaction got its number: the clock is read
	// after that, but of who is registered by the same batch.
	gaugeSlack = 5 * time.Second
	// gaugeForgotten is after how long without a reading it is cheaper to begin anew with the rollup's sums.
	gaugeForgotten = 5 * time.Minute
	// gaugeAnew is after how long all is read anew all the same, so that nothing that was missed is missed for longer.
	gaugeAnew = time.Hour
)

// GaugeStore follows what is recorded.
type GaugeStore interface {
	// GaugeNews reads what was committed since the mark, in one snapshot. If that cannot be told, since the mark is
	// zero, or of another server, the news are everything, from the rollup's sums on.
	GaugeNews(ctx context.Context, since GaugeMark) (GaugeNews, error)
}

// GaugeMark is how far what is recorded was followed. The zero GaugeMark is nowhere.
type GaugeMark struct {
	// Server says on which server, since it began to run.
	Server string
	// Snapshot has seen everything up to the mark, as PostgreSQL writes one.
	Snapshot string
	// Since is no later than anything was recorded that the snapshot has not seen.
	Since time.Time
}

// GaugeNews are what was committed since a mark.
type GaugeNews struct {
	// Everything says that the news are not those since the mark.
	Everything bool
	// At, Server and Snapshot are those of the reading. Transactions from Oldest on may be under way, and Next is the
	// number of the next one.
	At               time.Time
	Server, Snapshot string
	Oldest, Next     int64
	// Since is where the events were read from.
	Since time.Time
	// Minutes are what the events of a minute came to, each minute at most once.
	Minutes []GaugeMinute
	// Sums are what days have in the rollup, with Everything.
	Sums []GaugeSum
	// Failed is work that ended without a charge, Late work among it, or among what failed before, that was charged
	// after all.
	Failed []FailedWork
	Late   []quota.AdmissionID
}

// GaugeMinute is what events add, by the minute in which they occurred.
type GaugeMinute struct {
	GaugeSum

	// Charged is how many admissions were.
	Charged int64
}

// GaugeSum is what was used at some time. What is reversed takes away from it.
type GaugeSum struct {
	At      time.Time
	Uses    int64
	Credits quota.Credits
}

// FailedWork is an admission that was released, or expired.
type FailedWork struct {
	ID      quota.AdmissionID
	EndedAt time.Time
}

// Gauge is what has been used today, by all, and what work came to lately.
type Gauge struct {
	// At is the instant as of which it is complete.
	At time.Time
	// Day is the day of UTC, and Uses and Credits those of the events that occurred on it, without what was reversed.
	Day     time.Time
	Uses    int64
	Credits quota.Credits
	// Since is when the work ended of which Ended is how much there was, and Failed how much of it was not charged.
	Since         time.Time
	Ended, Failed int64
}

// Gauges follow what is recorded, in the order in which it is committed, while somebody looks on. What was read once is
// not read again: a reading costs what has happened since the one before, and nothing is written for it. It is safe for
// concurrent use.
type Gauges struct {
	store GaugeStore

	mu sync.Mutex
	// turn is the reading under way; nil without one.
	turn *gaugeTurn
	// read is when the last one was made, and anew when one was that began with the rollup's sums.
	read, anew time.Time
	// What follows belongs to the reading under way.
	mark GaugeMark
	// past are earlier readings that may still tell from when on to look.
	past []gaugePast
	// days, charged and failed are of today and later, and of RecentWork.
	days    map[time.Time]GaugeSum
	charged map[time.Time]int64
	failed  map[quota.AdmissionID]time.Time
}

// gaugePast is that no transaction from next on had begun to write at that time.
type gaugePast struct {
	at   time.Time
	next int64
}

type gaugeTurn struct {
	began time.Time
	done  chan struct{}
	gauge Gauge
	err   error
}

// NewGauges returns some that follow a store. They do nothing before they are read.
func NewGauges(store GaugeStore) *Gauges { return &Gauges{store: store} }

// Read returns what there is now. A reading that takes longer than ctx goes on, and is of use to the next one.
func (g *Gauges) Read(ctx context.Context) (Gauge, error) {
	t := g.begin(context.WithoutCancel(ctx))
	select {
	case <-ctx.Done():
		return Gauge{}, ctx.Err()
	case <-t.done:
	}
	if late := time.Since(t.began); t.err == nil && late > GaugeFresh {
		return Gauge{}, fmt.Errorf("%w: the gauges took %s to read, at most %s is of now", ledger.ErrUnavailable, late,
			GaugeFresh)
	}
	return t.gauge, t.err
}

// begin begins to read, unless somebody does so already.
func (g *Gauges) begin(ctx context.Context) *gaugeTurn {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.turn != nil {
		return g.turn
	}
	t := &gaugeTurn{began: time.Now(), done: make(chan struct{})}
	if t.began.Sub(g.read) > gaugeForgotten || t.began.Sub(g.anew) > gaugeAnew {
		g.mark = GaugeMark{}
	}
	g.turn = t
	go func() {
		ctx, cancel := context.WithTimeout(ctx, gaugeTimeout)
		defer cancel()
		t.gauge, t.err = g.follow(ctx)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.turn, g.read = nil, time.Now()
		close(t.done)
	}()
	return t
}

// follow takes in what is new and says what there is.
func (g *Gauges) follow(ctx context.Context) (Gauge, error) {
	news, err := g.store.GaugeNews(ctx, g.mark)
	if err != nil {
		return Gauge{}, err
	}
	if news.Everything {
		g.anew = time.Now()
		g.past, g.days, g.charged, g.failed = nil, map[time.Time]GaugeSum{}, map[time.Time]int64{},
			map[quota.AdmissionID]time.Time{}
	}
	g.advance(&news)
	day, since := GaugeSpans(news.At)
	add := func(s *GaugeSum) {
		if on := s.At.Truncate(24 * time.Hour); !on.Before(day) {
			d := g.days[on]
			g.days[on] = GaugeSum{At: on, Uses: d.Uses + s.Uses, Credits: d.Credits.Add(s.Credits)}
		}
	}
	for i := range news.Sums {
		add(&news.Sums[i])
	}
	for i := range news.Minutes {
		m := &news.Minutes[i]
		add(&m.GaugeSum)
		g.charged[m.At] += m.Charged
	}
	for _, f := range news.Failed {
		g.failed[f.ID] = f.EndedAt
	}
	for _, id := range news.Late {
		delete(g.failed, id)
	}
	out := Gauge{At: news.At, Day: day, Since: since}
	for on := range g.days {
		if on.Before(day) {
			delete(g.days, on)
		}
	}
	for minute, n := range g.charged {
		if minute.Before(since) {
			delete(g.charged, minute)
			continue
		}
		out.Ended += n
	}
	for id, at := range g.failed {
		if at.Before(since) {
			delete(g.failed, id)
		}
	}
	out.Uses, out.Credits = g.days[day].Uses, g.days[day].Credits
	out.Failed = int64(len(g.failed))
	out.Ended += out.Failed
	return out, nil
}

// advance moves the mark. What the reading has not seen has a transaction from Oldest on. Of an earlier reading whose
// Next that is, or less, it is known that the transaction began to write after it, and so when.
func (g *Gauges) advance(news *GaugeNews) {
	g.past = append(g.past, gaugePast{at: news.At, next: news.Next})
	since := news.Since
	for len(g.past) > 0 && g.past[0].next <= news.Oldest {
		since = g.past[0].at.Add(-gaugeSlack)
		if len(g.past) == 1 || g.past[1].next > news.Oldest {
			break
		}
		g.past = g.past[1:]
	}
	g.mark = GaugeMark{Server: news.Server, Snapshot: news.Snapshot, Since: since}
}

// GaugeSpans are the beginnings of the day of UTC that an instant lies on, and of the work that counts as recent then.
func GaugeSpans(at time.Time) (day, recent time.Time) {
	at = at.UTC()
	return at.Truncate(24 * time.Hour), at.Truncate(time.Minute).Add(-RecentWork)
}
