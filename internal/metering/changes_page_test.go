// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/doctable"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
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
	for _, row := range doctable.Read(t, changesPage) {
		if tables[row.Heading] == nil {
			headings = append(headings, row.Heading)
		}
		tables[row.Heading] = append(tables[row.Heading], row)
	}
	for _, heading := range headings {
		t.Run(heading, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			monthly := plans.Free()
			monthly.Name, monthly.ObjectUID, monthly.Default, monthly.CalendarMonth = "monthly", quota.ID{3},
				false, true
			if _, err := w.ApplyPlan(t.Context(), monthly, "test"); err != nil {
				t.Fatal(err)
			}
			s := story{
				world: w, admissions: map[string]quota.ID{},
				quota: metering.Quota{ObjectUID: quota.ID{1}, ObjectName: "alice", UserID: "alice", Zone: "UTC",
					Grants: map[string]metering.Grant{}},
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
	at, err := time.Parse(pageMinute, row.Cells["date"])
	if err != nil {
		s.t.Fatalf("%s:%d: %v", changesPage, row.Line, err)
	}
	s.advance(at.Sub(s.now()))
	answer, err := s.step(row.Cells["what happens"])
	if err != nil {
		s.t.Fatalf("%s:%d: %s: %v", changesPage, row.Line, row.Cells["what happens"], err)
	}
	if _, below := row.Cells["payer"]; below {
		s.playBelow(row, answer)
		return
	}
	u := s.usage(s.quota.UserID)
	got := map[string]string{
		"date": row.Cells["date"], "what happens": row.Cells["what happens"], "answer": answer,
		"used": u.Account.Used.String(), "reserved": u.Account.Reserved.String(),
		"remaining":   u.Account.Remaining(u.Now).Max.String(),
		"period ends": u.Account.Period.End.UTC().Format(pageMinute), "plan": u.Account.Plan.Name,
	}
	if _, ok := row.Cells["last period"]; ok {
		got["last period"] = "-"
		if u.Last != nil {
			got["last period"] = u.Last.Used.String()
		}
	}
	if diff := cmp.Diff(row.Cells, got); diff != "" {
		s.t.Errorf("%s:%d: %s (-page +got):\n%s", changesPage, row.Line, row.Cells["what happens"], diff)
	}
}

// playBelow compares what has come of a row about teams with the row's cells, of which those of who is not there yet
// are empty.
func (s *story) playBelow(row doctable.Row, answer string) {
	s.t.Helper()
	got := map[string]string{
		"date": row.Cells["date"], "what happens": row.Cells["what happens"], "answer": answer,
		"payer": "", "alice": "", "remaining": "",
	}
	stands := func(a *quota.Account) string { return a.Used.String() + " + " + a.Reserved.String() }
	all, err := s.UsageOf(s.t.Context(), []string{s.quota.UserID})
	if err != nil {
		s.t.Fatal(err)
	}
	if u, there := all[s.quota.UserID]; there {
		on := u.Chain()
		got["payer"], got["alice"] = on.Payer().Level().Name, stands(u.Account)
		got["remaining"] = on.Remaining(u.Now).Max.String()
	}
	for _, team := range []string{"newsroom", "company"} {
		if _, shown := row.Cells[team]; !shown {
			continue
		}
		got[team] = ""
		teams, err := s.TeamUsage(s.t.Context(), []string{team})
		if err != nil {
			s.t.Fatal(err)
		}
		if u, there := teams[team]; there {
			got[team] = stands(u.Usage.Account)
		}
	}
	if diff := cmp.Diff(row.Cells, got); diff != "" {
		s.t.Errorf("%s:%d: %s (-page +got):\n%s", changesPage, row.Line, row.Cells["what happens"], diff)
	}
}

var (
	pageTeam  = regexp.MustCompile(`^team (\w+): (\d+)(?: paid by (\w+))?(?: below (\w+))?(, suspended)?$`)
	pageWork  = regexp.MustCompile(`^(admit|complete) (\w+): (\d+)$`)
	pageGrant = regexp.MustCompile(`^grant (\w+): (\d+)(?: until (\S+))?$`)
)

// step returns what an admission is answered, nothing for other steps.
func (s *story) step(what string) (answer string, err error) {
	if m := pageWork.FindStringSubmatch(what); m != nil {
		return s.work(m[1], m[2], m[3])
	}
	verb, object, _ := strings.Cut(what, " ")
	switch verb {
	case "-":
		return "", nil
	case "team":
		return "", s.declare(what)
	case "join", "leave":
		return s.member(verb, object)
	case "retire":
		if team, of := strings.CutPrefix(object, "team "); of {
			return "", s.RetireTeam(s.t.Context(), team, quota.ClusterUID{}, "test")
		}
		return "", s.RetirePlan(s.t.Context(), object, quota.ID{}, "test")
	case "delete":
		removed := s.quota.ObjectUID
		s.quota.ObjectUID[0]++
		return "", s.RemoveQuota(s.t.Context(), removed, "test")
	case "make": // as it was
	case "plan":
		s.quota.PlanName = object
	case "override":
		err = s.override(object)
	case "anchor":
		s.quota.Anchor, err = time.Parse(pageMinute, object)
	case "zone":
		s.quota.Zone = object
	case "suspended":
		s.quota.Suspended, err = strconv.ParseBool(object)
	case "grant":
		err = s.grant(what)
	default:
		err = errors.New("not a step")
	}
	if err != nil {
		return "", err
	}
	return "", s.ApplyQuota(s.t.Context(), s.quota, "test")
}

// work asks for work, which would rather be refused than wait, or ends it.
func (s *story) work(verb, name, amount string) (answer string, err error) {
	credits, err := wholeCredits(amount)
	if err != nil {
		return "", err
	}
	if verb == "complete" {
		_, err = s.Complete(s.t.Context(), quota.ID{}, s.admissions[name], credits)
		return "", err
	}
	r := request(s.quota.UserID, name, credits)
	r.Queue = false
	res, err := s.Admit(s.t.Context(), r)
	if err != nil {
		return "", err
	}
	if res.Decision.Outcome != quota.Admit {
		return string(res.Decision.Reason), nil
	}
	s.admissions[name] = res.Admission.ID
	return "admitted", nil
}

// declare applies a UsageTeam.
func (s *story) declare(what string) error {
	m := pageTeam.FindStringSubmatch(what)
	if m == nil {
		return errors.New("not a team")
	}
	credits, err := wholeCredits(m[2])
	if err != nil {
		return err
	}
	team := metering.Team{
		Team: quota.Team{Name: m[1], Caps: quota.Caps{Credits: new(quota.AtMost(credits))}}, PlanName: m[3],
		Parent: m[4], Suspended: m[5] != "", Zone: "UTC",
	}
	_, err = s.ApplyTeam(s.t.Context(), team, "test")
	return err
}

// member puts the user into a team or out of it, and returns what that is answered where it is refused.
func (s *story) member(verb, team string) (answer string, err error) {
	change := s.AddMember
	if verb == "leave" {
		change = s.RemoveMember
	}
	err = change(s.t.Context(), team, s.quota.UserID, tester)
	if errors.Is(err, quota.ErrConflict) {
		return "409", nil
	}
	return "", err
}

func (s *story) override(limit string) error {
	s.quota.Overrides.Credits = nil
	if limit == "none" {
		return nil
	}
	credits, err := wholeCredits(limit)
	s.quota.Overrides.Credits = new(quota.AtMost(credits))
	return err
}

func (s *story) grant(what string) error {
	m := pageGrant.FindStringSubmatch(what)
	if m == nil {
		return errors.New("not a grant")
	}
	credits, err := wholeCredits(m[2])
	if err != nil {
		return err
	}
	g := metering.Grant{Credits: credits}
	if m[3] != "" {
		if g.ExpiresAt, err = time.Parse(pageMinute, m[3]); err != nil {
			return err
		}
	}
	s.quota.Grants[m[1]] = g
	return nil
}

func wholeCredits(text string) (quota.Credits, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	return quota.WholeCredits(n), err
}
