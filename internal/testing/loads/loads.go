// SPDX-License-Identifier: Apache-2.0

// Package loads makes recordings of queues for tests and benchmarks: three kinds of users send work for some weeks, and
// the real account decides when it starts. Each recording is the same whenever it is made.
package loads

import (
	"cmp"
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/forecast"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Recording is what happened in one user's queue, and where somebody stood who asked.
type Recording struct {
	Name string
	// Starts are all, in the order of time; Waited says of which the work had waited.
	Starts []forecast.Start
	Waited []bool
	Asked  []Question
}

// Question is somebody's in the queue.
type Question struct {
	At time.Time
	// Place is the one in the queue, from 1; Start is the index among the recording's starts of the one that was waited
	// for, and Before how many starts there had been.
	Place, Start, Before int
}

// Coverage is how many questions were asked and told anything, and how many of the latter's starts lie within the
// range.
type Coverage struct{ Asked, Told, Early, Within, Late int }

// Share is the one of the starts that lie within.
func (c Coverage) Share() float64 { return float64(c.Within) / float64(max(1, c.Told)) }

func (c Coverage) String() string {
	return fmt.Sprintf("%d asked, %d told, of these %d started before the range, %d within (%.3f), %d after", c.Asked,
		c.Told, c.Early, c.Within, c.Share(), c.Late)
}

// Add returns the sum of both.
func (c Coverage) Add(o Coverage) Coverage {
	return Coverage{c.Asked + o.Asked, c.Told + o.Told, c.Early + o.Early, c.Within + o.Within, c.Late + o.Late}
}

// Measure puts all questions of a recording to package forecast, with what had happened by then.
func Measure(r Recording) Coverage {
	var c Coverage
	for _, q := range r.Asked {
		c.Asked++
		var h forecast.History
		for i := q.Before - 1; i >= 0 && len(h.Starts) < forecast.MaxStarts; i-- {
			if i == q.Before-1 {
				h.Last = r.Starts[i].At
			}
			if r.Waited[i] {
				h.Starts = append(h.Starts, r.Starts[i])
			}
		}
		told, ok := forecast.Turn(h, q.Place, q.At)
		if !ok {
			continue
		}
		c.Told++
		switch at := r.Starts[q.Start].At; {
		case at.Before(told.Earliest):
			c.Early++
		case at.After(told.Latest):
			c.Late++
		default:
			c.Within++
		}
	}
	return c
}

// load is a kind of user.
type load struct {
	name  string
	slots int32
	// days that are recorded, and every how long somebody asks.
	days  int
	every time.Duration
	// arrive returns when the next work comes and how much of it at once, and run how long one piece of it runs.
	arrive func(r *rand.Rand, now time.Time) (time.Duration, int)
	run    func(r *rand.Rand, now time.Time) time.Duration
	// gives up is the share of the work that leaves the queue within the hour.
	givesUp float64
}

// All makes the recordings.
func All() []Recording {
	kinds := []load{
		{
			// One slot, and somebody who sends an interview after the other, at times faster than they are done.
			name: "studio, one slot", slots: 1, days: 60, every: 20 * time.Minute,
			arrive: func(r *rand.Rand, _ time.Time) (time.Duration, int) {
				return exponential(r, 13*time.Minute), 1
			},
			run: func(r *rand.Rand, _ time.Time) time.Duration { return lognormal(r, 10*time.Minute, 0.6) },
		},
		{
			// Five slots, whole boxes of recordings at once, most of them short and some very long.
			name: "newsroom, five slots", slots: 5, days: 40, every: 10 * time.Minute,
			arrive: func(r *rand.Rand, _ time.Time) (time.Duration, int) {
				return exponential(r, 150*time.Minute), 10 + r.IntN(60)
			},
			run: func(r *rand.Rand, _ time.Time) time.Duration {
				if r.IntN(10) == 0 {
					return lognormal(r, 70*time.Minute, 0.3)
				}
				return lognormal(r, 8*time.Minute, 0.7)
			},
			givesUp: 0.02,
		},
		{
			// Twenty slots on nodes that are slower by day than at night, and an archive that sends by the hour.
			name: "archive, twenty slots", slots: 20, days: 20, every: 5 * time.Minute,
			arrive: func(r *rand.Rand, now time.Time) (time.Duration, int) {
				return time.Hour - now.Sub(now.Truncate(time.Hour)) + exponential(r, 5*time.Minute), 20 + r.IntN(70)
			},
			run: func(r *rand.Rand, now time.Time) time.Duration {
				slow := 1 + 0.4*math.Sin(2*math.Pi*float64(now.Hour()*60+now.Minute())/(24*60))
				return exponential(r, time.Duration(slow*float64(18*time.Minute)))
			},
			givesUp: 0.01,
		},
	}
	out := make([]Recording, len(kinds))
	for i, k := range kinds {
		out[i] = k.record(rand.New(rand.NewPCG(20260310, uint64(i))))
	}
	return out
}

func exponential(r *rand.Rand, mean time.Duration) time.Duration {
	return time.Duration(r.ExpFloat64() * float64(mean))
}

func lognormal(r *rand.Rand, median time.Duration, sigma float64) time.Duration {
	return time.Duration(math.Exp(r.NormFloat64()*sigma) * float64(median))
}

// event is something that will happen, seq the order of those of one time.
type event struct {
	at   time.Time
	seq  int
	what func(now time.Time)
}

type events []event

func (e *events) Len() int { return len(*e) }
func (e *events) Less(i, j int) bool {
	x, y := (*e)[i], (*e)[j]
	return cmp.Or(x.at.Compare(y.at), cmp.Compare(x.seq, y.seq)) < 0
}
func (e *events) Swap(i, j int) { (*e)[i], (*e)[j] = (*e)[j], (*e)[i] }
func (e *events) Push(x any)    { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// recorder is the run of a recording.
type recorder struct {
	load
	*rand.Rand
	account *quota.Account
	queue   []*quota.Admission
	events  events
	seq     int
	out     Recording
	// asked are the questions of those that still wait.
	asked map[quota.AdmissionID][]Question
}

func (l load) record(r *rand.Rand) Recording {
	begin := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	plan := &quota.Plan{Name: "load", Currency: "USD", DailyCostCeiling: quota.Limit[quota.Money]{Unlimited: true}}
	plan.Limits = quota.Limits{
		Credits: quota.Limit[quota.Credits]{Unlimited: true}, FileSize: quota.Limit[int64]{Unlimited: true},
		Audio: quota.Limit[time.Duration]{Unlimited: true}, Concurrent: quota.AtMost(l.slots),
		Queued: quota.Limit[int32]{Unlimited: true},
	}
	s := &recorder{
		load: l, Rand: r, account: quota.Open(quota.AccountID{1}, "load", plan, begin),
		out: Recording{Name: l.name}, asked: map[quota.AdmissionID][]Question{},
	}
	end := begin.AddDate(0, 0, l.days)
	s.later(begin, s.arrival)
	s.later(begin, s.question)
	for len(s.events) > 0 {
		next := heap.Pop(&s.events).(event)
		if next.at.After(end) {
			break
		}
		s.account.Roll(next.at)
		next.what(next.at)
	}
	slices.SortStableFunc(s.out.Asked, func(x, y Question) int { return x.At.Compare(y.At) })
	return s.out
}

func (s *recorder) later(at time.Time, what func(now time.Time)) {
	s.seq++
	heap.Push(&s.events, event{at, s.seq, what})
}

func (s *recorder) arrival(now time.Time) {
	wait, n := s.arrive(s.Rand, now)
	s.later(now.Add(wait), s.arrival)
	for range n {
		s.seq++
		adm := &quota.Admission{
			ID: quota.AdmissionID{byte(s.seq >> 24), byte(s.seq >> 16), byte(s.seq >> 8), byte(s.seq)}, Enforced: true,
			Source: quota.SourceAPI, Lease: time.Minute, Request: quota.Request{Estimate: quota.Credit, Queue: true},
		}
		quota.Alone(s.account).Enter(adm, now)
		if adm.State == quota.Admitted {
			s.started(adm, now)
			continue
		}
		s.queue = append(s.queue, adm)
		s.ask(len(s.queue)-1, now)
		if s.Float64() < s.givesUp {
			s.later(now.Add(time.Duration(s.Float64()*float64(time.Hour))), func(now time.Time) { s.leave(adm, now) })
		}
	}
}

func (s *recorder) started(adm *quota.Admission, now time.Time) {
	s.out.Starts = append(s.out.Starts, forecast.Start{Since: adm.WaitingSince(), At: now})
	s.out.Waited = append(s.out.Waited, adm.ArrivedSeq < adm.AdmittedSeq)
	for _, q := range s.asked[adm.ID] {
		q.Start = len(s.out.Starts) - 1
		s.out.Asked = append(s.out.Asked, q)
	}
	delete(s.asked, adm.ID)
	s.later(now.Add(s.run(s.Rand, now)), func(now time.Time) {
		if _, err := quota.Alone(s.account).Settle(adm, quota.Credit, s.closed(adm), now); err != nil {
			panic(err) // it runs, so it can be settled
		}
		s.turn(now)
	})
}

// closed is the admission's period if it has ended; nothing here depends on what is in it.
func (s *recorder) closed(adm *quota.Admission) quota.Closed {
	if adm.PeriodNo == s.account.PeriodNo {
		return quota.Closed{}
	}
	return quota.Closed{{adm.PeriodNo: {
		No: adm.PeriodNo, Period: quota.Period{End: adm.PeriodEnd}, Currency: "USD",
	}}}
}

func (s *recorder) turn(now time.Time) {
	changed := quota.Alone(s.account).Promote(s.queue, now)
	s.queue = slices.DeleteFunc(s.queue, func(adm *quota.Admission) bool { return adm.State != quota.Queued })
	for _, adm := range changed {
		if adm.State == quota.Admitted {
			s.started(adm, now)
		}
	}
}

func (s *recorder) leave(adm *quota.Admission, now time.Time) {
	if adm.State != quota.Queued {
		return
	}
	if err := quota.Alone(s.account).End(adm, quota.Released, "", quota.Closed{}, now); err != nil {
		panic(err) // it waits, so it can leave
	}
	delete(s.asked, adm.ID)
	s.turn(now)
}

// question has somebody in the queue ask, whoever it is.
func (s *recorder) question(now time.Time) {
	s.later(now.Add(exponential(s.Rand, s.every)), s.question)
	if len(s.queue) > 0 {
		s.ask(s.IntN(len(s.queue)), now)
	}
}

func (s *recorder) ask(i int, now time.Time) {
	id := s.queue[i].ID
	s.asked[id] = append(s.asked[id], Question{At: now, Place: i + 1, Before: len(s.out.Starts)})
}
