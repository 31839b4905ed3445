// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/doctable"
)

const (
	changesPage = "../../docs/changes.md"
	// pageMinute is how the page writes its times.
	pageMinute = "2006-01-02T15:04Z07:00"
)

func TestChangesPage(t *testing.T) {
	t.Parallel()
	var headings []string
	tables := map[string][]doctable.Row{}
	for _, row := range doctable.Read(t, changesPage, "date", "what happens", "answer") {
		if tables[row.Heading] == nil {
			headings = append(headings, row.Heading)
		}
		tables[row.Heading] = append(tables[row.Heading], row)
	}
	for _, heading := range headings {
		t.Run(heading, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			monthly := freePlan()
			monthly.Name, monthly.ObjectUID, monthly.Default, monthly.CalendarMonth = "monthly", quota.ID{3}, false, true
			if _, err := w.ApplyPlan(t.Context(), monthly, "test"); err != nil {
				t.Fatal(err)
			}
			s := story{
				world: w, admissions: map[string]quota.ID{},
				quota: metering.Quota{ObjectUID: quota.ID{1}, ObjectName: "alice", UserID: "alice", Zone: "UTC", Grants: map[string]metering.Grant{}},
			}
			for _, row := range tables[heading] {
				s.play(row)
			}
		})
	}
}

// story plays a table of the page.
type story struct {
	*world
	quota      metering.Quota
	admissions map[string]quota.ID
}

// play does what a row says and compares what comes of it with the row's cells.
func (s *story) play(row doctable.Row) {
	s.t.Helper()
	s.advance(s.instant(row, row.Cells["date"]).Sub(s.now()))
	answer := s.step(row)
	u := s.usage(s.quota.UserID)
	last := "-"
	if u.Last != nil {
		last = u.Last.Used.String()
	}
	got := map[string]string{
		"date": row.Cells["date"], "what happens": row.Cells["what happens"], "answer": answer,
		"used": u.Account.Used.String(), "reserved": u.Account.Reserved.String(), "remaining": u.Account.Remaining(u.Now).Max.String(),
		"period ends": u.Account.Period.End.UTC().Format(pageMinute), "plan": u.Account.Plan.Name,
	}
	if _, ok := row.Cells["last period"]; ok {
		got["last period"] = last
	}
	if diff := cmp.Diff(row.Cells, got); diff != "" {
		s.t.Errorf("%s:%d (-page +got):\n%s", changesPage, row.Line, diff)
	}
}

var pageStep = regexp.MustCompile(`^(\w+)(?: (?:the )?([\w/:-]+?))?(?:: (\d+)(?: until (\S+))?)?$`)

// step returns what an admission is answered, nothing for other steps.
func (s *story) step(row doctable.Row) string {
	s.t.Helper()
	what := row.Cells["what happens"]
	if what == "-" {
		return ""
	}
	m := pageStep.FindStringSubmatch(what)
	if m == nil {
		s.t.Fatalf("%s:%d: the step %q is not known", changesPage, row.Line, what)
	}
	verb, object, credits := m[1], m[2], s.credits(row, m[3])
	switch verb {
	case "admit":
		return s.admitNow(object, credits)
	case "complete":
		if _, err := s.Complete(s.t.Context(), quota.ID{}, s.admissions[object], credits); err != nil {
			s.t.Fatalf("%s:%d: %v", changesPage, row.Line, err)
		}
		return ""
	case "retire":
		if err := s.RetirePlan(s.t.Context(), object, quota.ID{}, "test"); err != nil {
			s.t.Fatalf("%s:%d: %v", changesPage, row.Line, err)
		}
		return ""
	case "delete":
		if err := s.RemoveQuota(s.t.Context(), s.quota.ObjectUID, "test"); err != nil {
			s.t.Fatalf("%s:%d: %v", changesPage, row.Line, err)
		}
		s.quota.ObjectUID[0]++
		return ""
	case "make": // as it was
	case "plan":
		s.quota.PlanName = object
	case "override":
		s.quota.Overrides.Credits = nil
		if object != "none" {
			s.quota.Overrides.Credits = new(quota.AtMost(s.credits(row, object)))
		}
	case "anchor":
		s.quota.Anchor = s.instant(row, object)
	case "zone":
		s.quota.Zone = object
	case "suspended":
		s.quota.Suspended = object == "true"
	case "grant":
		g := metering.Grant{Credits: credits}
		if m[4] != "" {
			g.ExpiresAt = s.instant(row, m[4])
		}
		s.quota.Grants[object] = g
	default:
		s.t.Fatalf("%s:%d: the step %q is not known", changesPage, row.Line, what)
	}
	s.world.quota(s.quota)
	return ""
}

// admitNow asks for work that would rather be refused than wait.
func (s *story) admitNow(name string, estimate quota.Credits) string {
	s.t.Helper()
	r := request(s.quota.UserID, name, estimate)
	r.Queue = false
	res, err := s.Admit(s.t.Context(), r)
	if err != nil {
		s.t.Fatalf("admit %s: %v", name, err)
	}
	if res.Decision.Outcome != quota.Admit {
		return string(res.Decision.Reason)
	}
	s.admissions[name] = res.Admission.ID
	return "admitted"
}

func (s *story) instant(row doctable.Row, text string) time.Time {
	s.t.Helper()
	at, err := time.Parse(pageMinute, text)
	if err != nil {
		s.t.Fatalf("%s:%d: %v", changesPage, row.Line, err)
	}
	return at
}

// credits reads a whole number of them; nothing is none.
func (s *story) credits(row doctable.Row, text string) quota.Credits {
	s.t.Helper()
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		s.t.Fatalf("%s:%d: %v", changesPage, row.Line, err)
	}
	return quota.WholeCredits(n)
}
