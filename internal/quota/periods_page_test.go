// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/testing/doctable"
)

const periodsPage = "../../docs/periods.md"

// instant reads the page's times, which are to the minute.
func instant(t *testing.T, s string) time.Time {
	t.Helper()
	v, err := time.Parse("2006-01-02T15:04Z07:00", s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestPeriodsPage(t *testing.T) {
	t.Run("starts", func(t *testing.T) {
		for _, row := range doctable.Read(t, periodsPage, "anchor", "zone", "months later") {
			months, err := strconv.Atoi(row.Cells["months later"])
			if err != nil {
				t.Fatal(err)
			}
			c := Calendar{Anchor: instant(t, row.Cells["anchor"]), Zone: zone(t, row.Cells["zone"])}
			got := c.boundary(months).In(c.Zone).Format("2006-01-02T15:04Z07:00")
			if got != row.Cells["a period starts at"] {
				t.Errorf("%s:%d: %s in %s and %d months is %s, the page says %s", periodsPage, row.Line,
					row.Cells["anchor"], row.Cells["zone"], months, got, row.Cells["a period starts at"])
			}
		}
	})
	t.Run("changes", func(t *testing.T) {
		for _, row := range doctable.Read(t, periodsPage, "change", "the open period ends") {
			a := account(plan())
			roll(t, a, time.Date(2026, time.November, 20, 0, 0, 0, 0, time.UTC), 0)
			switch what, value, _ := strings.Cut(row.Cells["change"], " "); what {
			case "none":
			case "anchor":
				a.Anchor = instant(t, value)
			case "zone":
				a.Zone = zone(t, value)
			case "calendar":
				a.Plan.CalendarMonth = true
			default:
				t.Fatalf("the change %q is not known", row.Cells["change"])
			}
			for _, column := range []string{"the open period ends", "the next one ends", "and the next"} {
				if want := instant(t, row.Cells[column]); !a.Period.End.Equal(want) {
					t.Errorf("%s:%d: %s: %s %s, the page says %s", periodsPage, row.Line, row.Cells["change"], column,
						a.Period.End, row.Cells[column])
				}
				roll(t, a, a.Period.End, 1)
			}
		}
	})
	stories := map[string]*Plan{
		"when":    plan(),
		"at":      plan(slots(2), overageOf(20, 20_000)),
		"time":    plan(carryOver(25)),
		"instant": plan(carryOver(25)),
		"date":    plan(carryOver(25)),
	}
	for column, p := range stories {
		t.Run(column, func(t *testing.T) {
			s := story{a: account(p), admissions: map[string]*Admission{}, closed: map[int64]*ClosedPeriod{}}
			for _, row := range doctable.Read(t, periodsPage, column, "what happens") {
				paid := s.play(t, row.Cells["what happens"], instant(t, row.Cells[column]))
				got := map[string]string{
					"paid by": paid, "used": s.a.Used.String(), "reserved": s.a.Reserved.String(),
					"remaining": s.a.Remaining(instant(t, row.Cells[column])).Max.String(),
					"owed":      s.a.Charged.String(),
				}
				want := map[string]string{}
				for name := range got {
					if cell, ok := row.Cells[name]; ok {
						want[name] = cell
					} else {
						delete(got, name)
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s:%d: %s (-page +got):\n%s", periodsPage, row.Line, row.Cells["what happens"], diff)
				}
			}
		})
	}
}

// story plays the steps of the page's tables.
type story struct {
	a          *Account
	admissions map[string]*Admission
	closed     map[int64]*ClosedPeriod
}

var step = regexp.MustCompile(`^(admit|complete|grant) (\w+): (\d+)(?: until (\S+))?$`)

// play does what a step says and returns what it is paid by.
func (s *story) play(t *testing.T, what string, now time.Time) string {
	t.Helper()
	for _, p := range s.a.Roll(now) {
		s.closed[p.No] = &p
	}
	if what == "-" {
		return "-"
	}
	m := step.FindStringSubmatch(what)
	if m == nil {
		t.Fatalf("the step %q is not known", what)
	}
	n, err := strconv.ParseInt(m[3], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	switch m[1] {
	case "admit":
		s.admissions[m[2]] = enter(t, s.a, n, now)
		return s.describe(s.admissions[m[2]].Alloc)
	case "complete":
		adm := s.admissions[m[2]]
		return s.describe(settle(t, s.a, adm, n, s.closed[adm.PeriodNo], now).Alloc)
	}
	var expires time.Time
	if m[4] != "" {
		expires = instant(t, m[4])
	}
	s.a.Lots = append(s.a.Lots, grant(m[2], n, expires))
	return "-"
}

// describe lists who pays in the order in which they expire.
func (s *story) describe(al Allocation) string {
	var parts []string
	takePlan := func() {
		if al.Plan > 0 {
			parts = append(parts, fmt.Sprintf("plan %s", al.Plan))
			al.Plan = 0
		}
	}
	for _, share := range al.Lots {
		lot := s.a.lot(share.Lot)
		if expiryKey(lot.ExpiresAt) > expiryKey(s.a.Period.End) {
			takePlan()
		}
		name := lot.Name
		if lot.Kind == LotCarryOver {
			name = "carry-over"
		}
		parts = append(parts, fmt.Sprintf("%s %s", name, share.Credits))
	}
	takePlan()
	return strings.Join(parts, ", ")
}
