// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Package year plays what a hundred users do in a year, on four plans and in teams, through the ledger: what it leaves
// is what the product would have left. The same year is played whenever it is.
package year

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"net/url"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/outlook"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/postgres/rollupdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/reset"
	"github.com/cantonesescribe/usage-operator/internal/rollup"
)

// Objects are the manifests of the plans and teams that the year is played on, of two users, of a receiver of alerts
// that is not there, and of who may see what. Jobs are manifests of work that runs and waits when it is over.
var (
	//go:embed objects.yaml
	Objects string
	//go:embed jobs.yaml
	Jobs string
)

const (
	day = 24 * time.Hour
	// Days are the year's, and half a month more: most periods are open at the end, with something used.
	Days = 365 + 15
	// crowd is how many calls are under way at once.
	crowd = 32
	// backend is who calls.
	backend = "system:serviceaccount:transcripts:backend"
	// operator is who corrects.
	operator = "oidc:olga"
)

// Options of a year.
type Options struct {
	// DSN of the database, in which the plans and teams of Objects are declared.
	DSN string
	// End is the instant at which it ends.
	End time.Time
	// Tell is told the time whenever it goes on; nil is told nothing.
	Tell func(now time.Time) error
}

// Start is when a year begins that ends then.
func Start(end time.Time) time.Time { return end.Add(-Days * day) }

// player plays one year.
type player struct {
	*metering.Service

	o      Options
	store  *ledgerdb.Store
	resets *reset.Service
	people []*person

	mu    sync.Mutex
	clock time.Time
	calls int
	// charged are events that may still be found to be wrong.
	charged []*ledger.Event
}

// Play plays the year, rolls it up, and has told who will run out. Afterwards work of its users is admitted and waits.
func Play(ctx context.Context, o Options) error {
	p := &player{o: o, people: population(), clock: Start(o.End)}
	if err := makePartitions(ctx, o.DSN, p.clock, o.End); err != nil {
		return err
	}
	// Nobody is told of a commit, so it need not be on disk before the next one begins.
	dsn, err := url.Parse(o.DSN)
	if err != nil {
		return err
	}
	settings := dsn.Query()
	settings.Set("synchronous_commit", "off")
	dsn.RawQuery = settings.Encode()
	p.store, err = ledgerdb.Open(ctx, dsn.String(), postgres.Options{AllowUnsafe: true, Now: p.now, Name: "year"})
	if err != nil {
		return err
	}
	defer p.store.Close()
	engine := ledger.New(p.store, ledger.Options{})
	p.Service = metering.New(engine, p.store, access.NewSigner(p.store), metering.Options{
		AutoRegister: true, ReapInterval: time.Hour, Replica: "year", Now: p.now,
	})
	p.resets = reset.New(engine, p.store, nil)
	working, cancel := context.WithCancelCause(ctx)
	var background errgroup.Group
	background.Go(func() error { return p.Run(working) })
	err = p.play(working)
	cancel(nil)
	// Only when it has ended is all that was refused written down.
	if err := errors.Join(err, background.Wait()); err != nil {
		return err
	}
	return p.sumUp(ctx)
}

// makePartitions makes those of the months, as they would have been made ahead of each.
func makePartitions(ctx context.Context, dsn string, from, to time.Time) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, `SELECT ensure_usage_partition(m::date)
		FROM generate_series(date_trunc('month', $1::timestamptz), $2::timestamptz, '1 month') AS m`, from, to)
	return err
}

func (p *player) now() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.clock
}

// reach lets the time go on to an instant.
func (p *player) reach(at time.Time) error {
	if p.o.Tell != nil {
		if err := p.o.Tell(at); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clock = at
	return nil
}

func (p *player) play(ctx context.Context) error {
	for d := range Days {
		if err := p.playDay(ctx, d); err != nil {
			return fmt.Errorf("day %d of the year: %w", d, err)
		}
	}
	if err := p.reach(p.o.End); err != nil {
		return err
	}
	if err := p.closePeriods(ctx); err != nil {
		return err
	}
	return p.workNow(ctx)
}

// sumUp rolls up, and has accounts told of what is to be expected.
func (p *player) sumUp(ctx context.Context) error {
	sums := rollupdb.New(p.store.Store)
	if _, err := rollup.Run(ctx, sums, rollup.Options{FullSpeed: true}); err != nil {
		return err
	}
	watch := outlook.Watch{Store: sums, Forecasts: reports.New(p.store, p.Service), Alerts: p.Service}
	return watch.Once(ctx)
}

// playDay has everybody who comes on that day come, and use what they use: a few hours before the time of day at which
// the year ends.
func (p *player) playDay(ctx context.Context, d int) error {
	if err := p.reach(Start(p.o.End).Add(time.Duration(d)*day + 20*time.Hour)); err != nil {
		return err
	}
	if d%7 == 0 {
		if err := p.store.EnsurePartitions(ctx); err != nil {
			return err
		}
	}
	// Each night of the last month, before it one a week.
	if d%7 == 0 || d > Days-30 {
		if err := p.closePeriods(ctx); err != nil {
			return err
		}
	}
	if err := p.each(ctx, func(ctx context.Context, who *person) error { return p.come(ctx, who, d) }); err != nil {
		return err
	}
	if err := p.use(ctx, d); err != nil {
		return err
	}
	return p.correct(ctx, d)
}

// each does something for all who are there, beside each other.
func (p *player) each(ctx context.Context, do func(context.Context, *person) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(crowd)
	for _, who := range p.people {
		group.Go(func() error {
			if err := do(ctx, who); err != nil {
				return fmt.Errorf("%s: %w", who.id, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// come registers who comes on that day, and does what else changes of a user.
func (p *player) come(ctx context.Context, who *person, d int) error {
	if d == who.since {
		if _, err := p.RegisterUser(ctx, who.id, who.plan, who.zone, metering.By{Actor: backend}); err != nil {
			return err
		}
		if who.team != "" {
			if err := p.AddMember(ctx, who.team, who.id, metering.By{Actor: operator}); err != nil {
				return err
			}
		}
	}
	if d == who.upgrades {
		plan := "pro"
		return p.ChangeUser(ctx, who.id, metering.UserChange{Plan: &plan}, metering.By{Actor: operator})
	}
	if who.given > 0 && d > who.since && (Days-8-d)%who.given == 0 {
		name := "goodwill-" + p.now().Format("2006-01-02")
		_, err := p.GrantCredits(ctx, who.id, name,
			metering.Grant{Credits: 18 * quota.Credit, ExpiresAt: p.now().Add(60 * day).Truncate(time.Hour)},
			metering.By{Actor: operator, Reason: "for the trouble with the last recording"})
		return err
	}
	if who.suspended == d {
		yes := true
		return p.ChangeUser(ctx, who.id, metering.UserChange{Suspended: &yes},
			metering.By{Actor: operator, Reason: "the card was stolen"})
	}
	return nil
}

// file is something to be transcribed.
type file struct {
	who      *person
	minutes  float64
	admitted *ledger.Admission
}

// use has all use what they use on that day: some tell afterwards, some ask before and tell seven minutes later.
func (p *player) use(ctx context.Context, d int) error {
	asked := make([][]*file, len(p.people))
	if err := p.each(ctx, func(ctx context.Context, who *person) error {
		for _, minutes := range who.files(d) {
			f := &file{who: who, minutes: minutes}
			if who.asks(d) {
				if err := p.ask(ctx, f); err != nil {
					return err
				}
				asked[who.index] = append(asked[who.index], f)
			} else if err := p.record(ctx, f); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	// Who waited behind others has a slot after one turn of it, or gives up after two.
	for turn := range 2 {
		if err := p.reach(p.now().Add(7 * time.Minute)); err != nil {
			return err
		}
		if err := p.each(ctx, func(ctx context.Context, who *person) error {
			for _, f := range asked[who.index] {
				if err := p.finish(ctx, f, turn == 1); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// key is an idempotency key of its own, with what stands for the call's body.
func (p *player) key(what string) (key string, bodyHash []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	key = fmt.Sprintf("%s-%d", what, p.calls)
	hash := sha256.Sum256([]byte(key))
	return key, hash[:]
}

func credits(minutes float64) quota.Credits {
	return max(1, quota.Credits(math.Round(minutes*60))*quota.Credit/60)
}

// ask asks for a slot, which a limit may refuse.
func (p *player) ask(ctx context.Context, f *file) error {
	res, err := p.Admit(ctx, p.request(f.who, f.minutes))
	if err != nil {
		return err
	}
	f.admitted = res.Admission
	return nil
}

func (p *player) request(who *person, minutes float64) metering.AdmitRequest {
	key, hash := p.key("ask")
	return metering.AdmitRequest{
		UserID: who.id, Key: key, BodyHash: hash, Source: quota.SourceAPI, Name: "web", RequestedBy: backend,
		Estimate: credits(minutes), FileSize: int64(minutes * 1_000_000), Queue: true, Lease: quota.MaxLease,
	}
}

// finish completes what has a slot; one in twenty of it failed. What has none yet is given up at the last turn.
func (p *player) finish(ctx context.Context, f *file, last bool) error {
	adm := f.admitted
	if adm == nil {
		return nil
	}
	if adm.State == quota.Queued {
		var err error
		if adm, err = p.Get(ctx, adm.ID); err != nil {
			return err
		}
	}
	var err error
	switch {
	case adm.State == quota.Queued && !last:
		return nil
	case adm.State == quota.Queued, f.who.r.IntN(20) == 0:
		_, err = p.Release(ctx, adm.Account, adm.ID)
	default:
		_, err = p.Complete(ctx, adm.Account, adm.ID, credits(f.minutes*(0.9+0.1*f.who.r.Float64())))
	}
	f.admitted = nil
	return err
}

// titles are what recordings are called.
var titles = []string{
	"訪問錄音_陳大文.m4a", "board-meeting.mp3", "粵語播客第十二集.wav",
	"lecture-04.m4a", "立法會會議.mp3", "call-center-0417.wav",
	"訪問_黃小明.m4a", "morning-show.mp3", "",
}

// record tells of what was used in the hours before.
func (p *player) record(ctx context.Context, f *file) error {
	r := f.who.r
	key, hash := p.key("use")
	req := metering.RecordRequest{UserID: f.who.id, Key: key, BodyHash: hash, RecordedBy: backend}
	if f.who.exports && r.IntN(8) == 0 {
		req.Use = quota.Use{Type: "export", Quantity: 1 + r.Int64N(3)}
	} else {
		req.Use = quota.Use{Type: quota.UsageTranscription,
			Audio: time.Duration(math.Round(f.minutes*60)) * time.Second}
		req.FileSize = int64(f.minutes * 1_000_000)
	}
	req.Use.OccurredAt = p.now().Add(-time.Duration(r.IntN(4*3600)) * time.Second)
	if title := titles[r.IntN(len(titles))]; title != "" {
		req.Metadata = map[string]string{"name": title}
	}
	res, err := p.Record(ctx, req)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.charged = append(p.charged, res.Event)
	return nil
}

// correct has an operator undo one charge of nine days, and adjust somebody's credits now and then.
func (p *player) correct(ctx context.Context, d int) error {
	p.mu.Lock()
	charged := p.charged
	p.charged = nil
	p.mu.Unlock()
	if d%9 == 0 && len(charged) > 0 {
		event := charged[0]
		key, hash := p.key("reverse")
		if _, err := p.Reverse(ctx, metering.ReverseRequest{
			Account: event.Account, Event: event.ID, Key: key, BodyHash: hash, Actor: operator,
			Reason: "the recording was silent",
		}); err != nil {
			return err
		}
	}
	if d%23 == 22 {
		key, hash := p.key("adjust")
		_, err := p.Adjust(ctx, metering.AdjustRequest{
			UserID: p.people[d%10].id, Key: key, BodyHash: hash, Credits: quota.Credit / 2, Actor: operator,
			Reason: "billed by hand after the outage",
		})
		return err
	}
	return nil
}

// closePeriods closes those that have ended.
func (p *player) closePeriods(ctx context.Context) error {
	for _, plan := range []string{free, "starter", "pro", "enterprise"} {
		if _, err := p.resets.Run(ctx, reset.Options{Plan: plan, Actor: "schedule", FullSpeed: true}); err != nil {
			return err
		}
	}
	return nil
}

// workNow has work admitted, which waits for all that work can wait for: a slot, the team's slots, credits, the
// end of a suspension. It goes on for as long as a lease may.
func (p *player) workNow(ctx context.Context) error {
	for _, w := range []struct {
		user    string
		minutes float64
	}{
		{mina, 6}, {mina, 11}, {"chan.tai-man", 8}, {mina, 14}, {"wong.siu-ming", 5}, {"chan.tai-man", 21},
		{mina, 4}, {ada, 9}, {ada, 12}, {ada, 7}, {"lok", 3}, {"lok", 3}, {"grace", 10}, {mina, 170},
	} {
		who := p.named(w.user)
		req := p.request(who, w.minutes)
		req.Park = true
		if _, err := p.Admit(ctx, req); err != nil {
			return fmt.Errorf("%s: %w", w.user, err)
		}
	}
	return nil
}
