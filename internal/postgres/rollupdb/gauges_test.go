// SPDX-License-Identifier: Apache-2.0

package rollupdb_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/postgres/rollupdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/rollup"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
)

// definitionsOfNow are those of docs/analytics.md.
func definitionsOfNow(t *testing.T) (today, ended string) {
	t.Helper()
	page, err := os.ReadFile("../../../docs/analytics.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)<!-- now: (.*?) -->\n```sql\n(.*?)\n```").FindAllStringSubmatch(
		string(page), -1) {
		found[m[1]] = m[2]
	}
	if found["today"] == "" || found["ended"] == "" {
		t.Fatalf("docs/analytics.md defines %v of now", found)
	}
	return found["today"], found["ended"]
}

// gauged are gauges that are held against the definitions.
type gauged struct {
	*metering.Gauges
	db           *readdb.Store
	today, ended string
	// anew counts the readings that began with the rollup's sums; news are the latest.
	anew int
	news metering.GaugeNews
}

// GaugeNews notes what is read.
func (g *gauged) GaugeNews(ctx context.Context, since metering.GaugeMark) (metering.GaugeNews, error) {
	n, err := g.db.GaugeNews(ctx, since)
	if g.news = n; err == nil && n.Everything {
		g.anew++
	}
	return n, err
}

func newGauged(t *testing.T, db *readdb.Store) *gauged {
	t.Helper()
	g := &gauged{db: db}
	g.today, g.ended = definitionsOfNow(t)
	g.Gauges = metering.NewGauges(g)
	return g
}

// check reads, while nobody writes, and says what differs.
func (g *gauged) check(ctx context.Context) error {
	got, err := g.Read(ctx)
	if err != nil {
		return err
	}
	want := metering.Gauge{At: got.At, Day: got.Day, Since: got.Since}
	if err := g.db.Pool().QueryRow(ctx, g.today, got.Day).Scan(&want.Uses, &want.Credits); err != nil {
		return err
	}
	if err := g.db.Pool().QueryRow(ctx, g.ended, got.Since).Scan(&want.Ended, &want.Failed); err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("got %+v, the events say %+v", got, want)
	}
	return nil
}

// Whatever is done, in whatever order, rolled up or not, one who has followed it all along and one who has just come
// say what the events do.
func TestGaugesAreTheEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.newsroom()
	follows := newGauged(t, w.ledger.Store)
	users, checks := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		users++
		s := &sequence{T: rt, w: w, user: fmt.Sprintf("user-%d", users)}
		s.zone()
		for range rapid.IntRange(4, 25).Draw(rt, "operations") {
			s.step()
			if rapid.Bool().Draw(rt, "look") {
				checks++
				if err := follows.check(t.Context()); err != nil {
					rt.Fatalf("who follows: %v", err)
				}
			}
		}
		if err := newGauged(t, w.ledger.Store).check(t.Context()); err != nil {
			rt.Fatalf("who has just come: %v", err)
		}
	})
	if follows.anew != 1 || checks < 10 {
		t.Errorf("%d readings of %d began with the rollup's sums, want the first", follows.anew, checks)
	}
}

// What expired is failed until it is charged after all, also for who has seen it before; and who comes while a rollup
// is under way adds nothing twice.
func TestGaugesOfLateWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	follows := newGauged(t, w.ledger.Store)
	looks := func(ended, failed int64) {
		t.Helper()
		for name, g := range map[string]*gauged{"follows": follows, "has just come": newGauged(t, w.ledger.Store)} {
			if err := g.check(t.Context()); err != nil {
				t.Errorf("who %s: %v", name, err)
			}
			if got, err := g.Read(t.Context()); err != nil || got.Ended != ended || got.Failed != failed {
				t.Errorf("who %s: got %+v, %v, want %d of %d to have failed", name, got, err, failed, ended)
			}
		}
	}
	res, err := w.Admit(t.Context(), metering.AdmitRequest{UserID: "ada", Key: "a", BodyHash: []byte{1},
		Source: quota.SourceAPI, RequestedBy: "test", Estimate: quota.Credit, FileSize: 5, Lease: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	looks(0, 0)
	w.advance(2 * time.Minute)
	if err := w.Reap(t.Context()); err != nil {
		t.Fatal(err)
	}
	looks(1, 1)
	if _, err := w.Complete(t.Context(), res.Admission.Account, res.Admission.ID, quota.Credit); err != nil {
		t.Fatal(err)
	}
	looks(1, 0)
	if _, err := w.store.RollUp(t.Context(), []quota.AccountID{res.Admission.Account}, false); err != nil {
		t.Fatal(err)
	}
	looks(1, 0)
	w.rollUp(rollup.Options{})
	looks(1, 0)
	w.advance(metering.RecentWork + time.Minute)
	looks(0, 0)
	if follows.anew != 1 {
		t.Errorf("who follows began anew %d times", follows.anew-1)
	}
}

// Beside writers in several processes and rollups each reading is exactly what was committed when it was made, also
// with its connections lost.
func TestGaugesBesideWriters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var writers, others sync.WaitGroup
	for replica := range 2 {
		store := openNow(t, w.dsn)
		service := metering.New(ledger.New(store, ledger.Options{}), store, access.NewSigner(store),
			metering.Options{AutoRegister: true})
		for u := range 4 {
			writers.Go(func() { write(t, service, fmt.Sprintf("user-%d-%d", replica, u)) })
		}
	}
	written := make(chan struct{})
	others.Go(func() {
		store := openNow(t, w.dsn)
		for n := 0; ; n++ {
			_, err := rollup.Run(t.Context(), rollupdb.New(store.Store), rollup.Options{FullSpeed: true})
			if err != nil {
				t.Error(err)
			}
			select {
			case <-written:
				return
			default:
			}
		}
	})
	for reader := range 2 {
		others.Go(func() {
			store := openNow(t, w.dsn)
			g := newGauged(t, store.Store)
			for n := 0; ; n++ {
				if reader == 1 && n%7 == 6 {
					g = newGauged(t, store.Store)
				}
				if n%5 == 4 {
					loseConnections(t, w, store)
				}
				got, err := g.Read(t.Context())
				if errors.Is(err, ledger.ErrUnavailable) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				asSeen(t, g, got)
				select {
				case <-written:
					if err := g.check(t.Context()); err != nil {
						t.Error(err)
					}
					return
				default:
				}
			}
		})
	}
	writers.Wait()
	close(written)
	others.Wait()
}

// openNow opens a database on its own clock.
func openNow(t *testing.T, dsn string) *ledgerdb.Store {
	t.Helper()
	store, err := ledgerdb.Open(t.Context(), dsn, postgres.Options{AllowUnsafe: true, Name: "rollup"})
	if err != nil {
		t.Fatal(err)
	}
	ledgertest.Close(t, store)
	return store
}

// write uses the service in all ways that count.
func write(t *testing.T, service *metering.Service, user string) {
	t.Helper()
	ctx := t.Context()
	for n := range 40 {
		key := fmt.Sprintf("%s-%d", user, n)
		made, err := service.Record(ctx, metering.RecordRequest{
			UserID: user, Key: key, BodyHash: []byte(key), RecordedBy: "test",
			Use: quota.Use{Type: quota.UsageTranscription, Audio: time.Duration(n+1) * time.Second,
				OccurredAt: time.Now().Add(-time.Duration(n%3) * 30 * time.Hour)},
		})
		if err != nil {
			t.Error(err)
			return
		}
		if n%4 == 1 {
			if _, err := service.Reverse(ctx, metering.ReverseRequest{Account: made.Event.Account, Event: made.Event.ID,
				Key: "undo-" + key, BodyHash: []byte{1}, Reason: "test", Actor: "test"}); err != nil {
				t.Error(err)
			}
		}
		res, err := service.Admit(ctx, metering.AdmitRequest{UserID: user, Key: "job-" + key, BodyHash: []byte{1},
			Source: quota.SourceAPI, RequestedBy: "test", Estimate: quota.Credit, FileSize: 5, Lease: time.Hour})
		if err != nil || res.Admission == nil {
			t.Errorf("admit: %+v, %v", res, err)
			return
		}
		if n%3 == 0 {
			_, err = service.Release(ctx, res.Admission.Account, res.Admission.ID)
		} else {
			_, err = service.Complete(ctx, res.Admission.Account, res.Admission.ID, quota.Credit/3)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// loseConnections ends those of a store.
func loseConnections(t *testing.T, w *world, store *ledgerdb.Store) {
	t.Helper()
	conn, err := store.Pool().Acquire(t.Context())
	if err != nil {
		return // it is the one after such a loss
	}
	pid := conn.Conn().PgConn().PID()
	conn.Release()
	if _, err := w.ledger.Pool().Exec(t.Context(), "SELECT pg_terminate_backend($1)", int32(pid)); err != nil {
		t.Error(err)
	}
}

// asSeen compares a reading with the events that its snapshot sees.
func asSeen(t *testing.T, g *gauged, got metering.Gauge) {
	t.Helper()
	sees := func(row string) string {
		return "pg_visible_in_snapshot(" + row + ".xmin::text::xid8, '" + g.news.Snapshot + "')"
	}
	query := strings.Replace(g.today, "ON r.reverses = e.id", "ON r.reverses = e.id AND "+sees("r"), 1)
	query = strings.Replace(query, "WHERE ", "WHERE "+sees("e")+" AND ", 1)
	var uses int64
	var used quota.Credits
	err := g.db.Pool().QueryRow(t.Context(), query, got.Day).Scan(&uses, &used)
	for errors.Is(postgres.MapError(err), ledger.ErrUnavailable) {
		err = g.db.Pool().QueryRow(t.Context(), query, got.Day).Scan(&uses, &used)
	}
	if err != nil {
		t.Error(err)
	}
	if uses != got.Uses || used != got.Credits {
		t.Errorf("at %s: got %d uses of %s, the events say %d of %s", g.news.Snapshot, got.Uses, got.Credits, uses,
			used)
	}
}
