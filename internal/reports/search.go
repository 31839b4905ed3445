// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// MaxLook is the most rows of the audit log that one page is searched for in, so that a search for what there is none
// of ends.
const MaxLook = 10_000

// User is a user as support finds it.
type User struct {
	UserID, Plan string
	Suspended    bool
	// Zone is the IANA name of its time zone.
	Zone string
	// Team that it is in, by name, and QuotaName the UserQuota that declares it; empty without one.
	Team, QuotaName string
	RegisteredAt    time.Time
}

// AdmissionFilter chooses admissions of a user: those in one of the States and, unless that is empty, with the Reason.
type AdmissionFilter struct {
	States []quota.State
	Reason quota.Reason
}

// Uncharged are the states that admissions can be listed by: of those that were charged their events tell.
var Uncharged = []quota.State{quota.Queued, quota.Admitted, quota.Released, quota.Expired, quota.Cancelled}

// EventPage is a page of the events in a period, the newest first.
type EventPage struct {
	Period int64
	Events []*ledger.Event
	// Next is the event that the next page begins behind; nil if this page was the last.
	Next *EventPlace
}

// EventPlace is where in a period's events, by the user's order of decisions, a page begins.
type EventPlace struct {
	Seq int64
	ID  quota.EventID
}

// Place is where a page begins: at an instant, and of what is there at that, behind an id. The zero value is the
// beginning of the list.
type Place struct {
	At time.Time
	ID quota.ID
}

// AuditFilter chooses rows of the audit log. The zero value is all of them.
type AuditFilter struct {
	// UserID chooses those about a user, ObjectKind and ObjectName, together, those about another object.
	UserID, ObjectKind, ObjectName string
	// Action, and Actor by the name that Kubernetes knows.
	Action quota.AuditAction
	Actor  string
	// Since, and before Until; zero: no bound.
	Since, Until time.Time
}

// AuditEntry is a row of the audit log.
type AuditEntry struct {
	ID                 int64
	At                 time.Time
	Actor              string
	Action             quota.AuditAction
	ObjectKind, Object string
	UserID             string
	Before, After      json.RawMessage
	// Reason is why, in the words of who did it; empty where none was given.
	Reason string
}

// AuditPage is a page of the audit log, the newest row first.
type AuditPage struct {
	Entries []AuditEntry
	// Next is the row that the next page begins behind; zero if this page was the last. There may be one behind a page
	// without any entries.
	Next int64
}

// SearchStore finds what there is. What it returns, limit of it at most, is in the order of the pages.
type SearchStore interface {
	// Users reads users whose ids begin so, behind one, in the order of their bytes, and User one, or ErrNotFound.
	Users(ctx context.Context, prefix, after string, limit int) ([]User, error)
	User(ctx context.Context, userID string) (User, error)
	// Admissions reads a user's that arrived before a place in its order of decisions, or ErrNotFound. One that cannot
	// be read says no state.
	Admissions(
		ctx context.Context, userID string, f AdmissionFilter, before int64, limit int,
	) ([]*ledger.Admission, error)
	// StuckAdmissions reads the admissions that seem stuck, a user's or for "" everybody's, those that were admitted
	// first first, behind an instant and, of what was admitted then, an id; or ErrNotFound. One that cannot be read
	// says no state.
	StuckAdmissions(
		ctx context.Context, userID string, admittedAfter time.Time, after quota.AdmissionID, limit int,
	) ([]*ledger.Admission, error)
	// Events reads a user's in a period, behind a place, or ErrNotFound.
	Events(ctx context.Context, userID string, period int64, behind EventPlace, limit int) ([]*ledger.Event, error)
	// Audit reads rows with lower ids, among the first look of them, and returns the last one that it has looked at if
	// there may be more.
	Audit(
		ctx context.Context, f AuditFilter, before int64, limit, look int,
	) (entries []AuditEntry, looked int64, err error)
}

// Users returns at most limit (1 to MaxPage) users whose ids begin so, behind one, and whether there are more.
func (s *Service) Users(ctx context.Context, prefix, after string, limit int) (users []User, more bool, err error) {
	if err := checkLimit(limit); err != nil {
		return nil, false, err
	}
	users, err = s.store.Users(ctx, prefix, after, limit+1)
	if len(users) > limit {
		return users[:limit], true, err
	}
	return users, false, err
}

// User returns a user, or ErrNotFound.
func (s *Service) User(ctx context.Context, userID string) (User, error) {
	return s.store.User(ctx, userID)
}

// Admissions returns at most limit (1 to MaxPage) of a user's admissions that arrived before a place in its order of
// decisions, 0 for all, and the place that the next page begins before, 0 if there is none.
func (s *Service) Admissions(
	ctx context.Context, userID string, f AdmissionFilter, before int64, limit int,
) (page []*ledger.Admission, next int64, err error) {
	if err := checkLimit(limit); err != nil {
		return nil, 0, err
	}
	if before == 0 {
		before = math.MaxInt64
	}
	page, err = s.store.Admissions(ctx, userID, f, before, limit+1)
	if len(page) > limit {
		page, next = page[:limit], page[limit-1].ArrivedSeq
	}
	return readable(page), next, err
}

// readable leaves out the admissions that cannot be read, which count only for where a page ends.
func readable(page []*ledger.Admission) []*ledger.Admission {
	return slices.DeleteFunc(page, func(adm *ledger.Admission) bool { return adm.State == "" })
}

// StuckAdmissions returns at most limit (1 to MaxPage) of the admissions that seem to have lost their holder, a user's
// or for "" everybody's, those that were admitted first first, behind a place, and where the next page begins, zero if
// there is none. ErrNotFound for a user who is not known.
func (s *Service) StuckAdmissions(
	ctx context.Context, userID string, behind Place, limit int,
) (page []*ledger.Admission, next Place, err error) {
	if err := checkLimit(limit); err != nil {
		return nil, Place{}, err
	}
	page, err = s.store.StuckAdmissions(ctx, userID, behind.At, quota.AdmissionID(behind.ID), limit+1)
	if len(page) > limit {
		page = page[:limit]
		next = Place{At: page[limit-1].AdmittedAt, ID: quota.ID(page[limit-1].ID)}
	}
	return readable(page), next, err
}

// Events returns at most limit (1 to MaxPage) of the events that are booked in a user's period, the open one for nil,
// behind a place, from the newest on for nil. It is ErrNotFound where the period is one that has not begun.
func (s *Service) Events(
	ctx context.Context, userID string, period *int64, behind *EventPlace, limit int,
) (EventPage, error) {
	if err := checkLimit(limit); err != nil {
		return EventPage{}, err
	}
	var page EventPage
	if period != nil {
		page.Period = *period
	} else {
		u, err := s.standings.Current(ctx, userID)
		if err != nil {
			return EventPage{}, err
		}
		page.Period = u.Account.PeriodNo
	}
	if behind == nil {
		behind = &EventPlace{Seq: math.MaxInt64}
	}
	events, err := s.store.Events(ctx, userID, page.Period, *behind, limit+1)
	if err != nil {
		return EventPage{}, err
	}
	if len(events) == 0 && period != nil {
		u, err := s.standings.Current(ctx, userID)
		if err != nil {
			return EventPage{}, err
		}
		if *period > u.Account.PeriodNo {
			return EventPage{}, quota.NotFound("period %d of user %q, whose periods are 0 to %d", *period, userID,
				u.Account.PeriodNo)
		}
	}
	if page.Events = events; len(events) > limit {
		page.Events = events[:limit]
		last := events[limit-1]
		page.Next = &EventPlace{Seq: last.Seq, ID: last.ID}
	}
	return page, nil
}

// Audit returns at most limit (1 to MaxPage) rows of the audit log before one, 0 for the newest. It looks at MaxLook
// rows at most.
func (s *Service) Audit(ctx context.Context, f AuditFilter, before int64, limit int) (AuditPage, error) {
	if err := checkLimit(limit); err != nil {
		return AuditPage{}, err
	}
	if before == 0 {
		before = math.MaxInt64
	}
	entries, looked, err := s.store.Audit(ctx, f, before, limit+1, MaxLook)
	if err != nil {
		return AuditPage{}, err
	}
	if len(entries) > limit {
		return AuditPage{Entries: entries[:limit], Next: entries[limit-1].ID}, nil
	}
	return AuditPage{Entries: entries, Next: looked}, nil
}
