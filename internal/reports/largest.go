// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"context"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// MaxLargest is how many of the largest pieces of work are known of any days.
const MaxLargest = 10

// LargeWork is one of the largest pieces of work: a use that took credits and was not reversed.
type LargeWork struct {
	// Event is its charge, Admission what was charged; zero of what was recorded directly.
	Event     quota.EventID
	Admission quota.AdmissionID
	// UserID is whose it is: of a team's only, and empty where that is not known any more.
	UserID string
	// JobNamespace and JobName are those of the admission's Job, if it has one.
	JobNamespace, JobName string
	UsageType, Plan       string
	// At is when an admission ended, or when what was recorded occurred.
	At      time.Time
	Credits quota.Credits
	Audio   time.Duration
	// Amounts are what it cost and what is owed for it, by currency.
	Amounts []quota.Amounts
}

// LargestStore reads the largest pieces of work of some days: most of them at most, from the largest on. Of two that
// took as much the earlier one comes first, of two at the same time the one with the smaller id.
type LargestStore interface {
	// Largest reads those of an account, whoever paid.
	Largest(ctx context.Context, account quota.AccountID, from, to Day, most int) ([]LargeWork, error)
	// LargestPaid reads, by days of UTC, those of others than the account itself that it pays for.
	LargestPaid(ctx context.Context, payer quota.AccountID, from, to Day, most int) ([]LargeWork, error)
}

// Largest are the largest pieces of work of a span.
type Largest struct {
	Rollup
	Span

	Work []LargeWork
}

// Largest lists at most limit (1 to MaxLargest) of the largest pieces of work of a user.
func (s *Service) Largest(ctx context.Context, userID string, span Span, limit int) (Largest, error) {
	r, err := s.rollup(ctx, userID)
	if err != nil {
		return Largest{}, err
	}
	return largest(ctx, &r, span, limit, s.summed.Largest)
}

// TeamLargest lists at most limit (1 to MaxLargest) of the largest pieces of work that a team paid for, by days of UTC.
func (s *Service) TeamLargest(ctx context.Context, team string, span Span, limit int) (Largest, error) {
	account, err := s.store.TeamAccount(ctx, team)
	if err != nil {
		return Largest{}, err
	}
	r, err := s.totalsRollup(ctx)
	if err != nil {
		return Largest{}, err
	}
	r.Account = account
	return largest(ctx, &r, span, limit, s.summed.LargestPaid)
}

func largest(
	ctx context.Context, r *Rollup, span Span, limit int,
	read func(context.Context, quota.AccountID, Day, Day, int) ([]LargeWork, error),
) (Largest, error) {
	if !r.Listed {
		r.AsOf = time.Time{}
	}
	if limit < 1 || limit > MaxLargest {
		return Largest{}, quota.Invalid("limit", "%d must be between 1 and %d", limit, MaxLargest)
	}
	asked, covered, err := span.within(r)
	out := Largest{Rollup: *r, Span: asked}
	if err != nil || r.Account == (quota.AccountID{}) || !covered.From.Before(covered.To) {
		return out, err
	}
	out.Work, err = read(ctx, r.Account, covered.From, covered.To, limit)
	return out, err
}
