// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// retryOnline bounds the look whether the database is really away, before a ticket is given.
const retryOnline = 2 * time.Second

// admitOffline answers a request that the database could not decide, because of cause: by a second try if it was a
// moment's trouble, else by an offline ticket where the user's plan says so and this replica knows enough.
func (s *Service) admitOffline(ctx context.Context, req AdmitRequest, cause error) (AdmitResult, error) {
	if s.tickets == nil || req.Source != quota.SourceAPI || ctx.Err() != nil {
		return AdmitResult{}, cause
	}
	looking, cancel := context.WithTimeout(ctx, retryOnline)
	defer cancel()
	if s.store.Ping(looking) == nil {
		res, err := s.admit(ctx, req)
		if !errors.Is(err, ledger.ErrUnavailable) {
			return res, err
		}
		cause = err // it answers, and cannot do its work
	}
	now := s.opts.Now().UTC()
	chain, known := s.tickets.standing(req.UserID)
	if !known {
		s.opts.Metrics.Ticket(TicketRefusedUser)
		return AdmitResult{}, cause
	}
	account, plan := chain.User(), chain.Payer().Plan
	var id quota.TicketID
	_, _ = rand.Read(id[:])
	t := &Ticket{
		ID: id, UserID: req.UserID, Account: account.ID, Key: req.Key, BodyHash: req.BodyHash, Estimate: req.Estimate,
		FileSize:  req.FileSize,
		Namespace: req.Namespace, Name: req.Name, RequestedBy: req.RequestedBy, Plan: plan.Name,
		PlanVersion: plan.Version,
		Replica:     s.opts.Replica, IssuedAt: now.Truncate(time.Millisecond),
	}
	t.ExpiresAt = t.IssuedAt.Add(req.Estimate.Audio()).Add(ticketLife)
	token, err := s.sign(ctx, t)
	if err != nil {
		return AdmitResult{}, err
	}
	given, d, err := s.tickets.give(issued{ticket: t, token: token}, chain, now)
	switch {
	case err != nil:
		return AdmitResult{}, err
	case d.Outcome == quota.Admit:
		created := given.ticket == t
		if created {
			s.opts.Metrics.Ticket(TicketIssued)
			s.opts.Metrics.Outstanding(s.tickets.count())
		}
		return AdmitResult{
			Decision: d, Admission: given.ticket.admission(now, quota.Admitted), On: chain, Ticket: given.token,
			Created: created,
		}, nil
	}
	s.opts.Metrics.Ticket(TicketRefusedLimit)
	if retry := d.Reason.Info().Retry; retry == quota.RetryNever || retry == quota.RetryChange {
		// Nothing that the database could tell is likely to change these.
		return AdmitResult{Decision: d, On: chain}, nil
	}
	return AdmitResult{}, fmt.Errorf("%w: %w", &NoTicketError{Reason: d.Reason, Message: d.Message()}, cause)
}

// NoTicketError is the error of a caller whose plan allows work while the database is away, but not this work: more of
// it than this replica may vouch for. It is no quota.Error: the caller can do nothing about it but come back when the
// database does, so every face answers as to any other ErrUnavailable, and the reason is for people. Online the same
// work may well be let in, so the status of a refusal would tell them too much.
type NoTicketError struct {
	Reason  quota.Reason
	Message string
}

func (e *NoTicketError) Error() string {
	return fmt.Sprintf("%v, and no offline ticket can be given: %s", ledger.ErrUnavailable, e.Message)
}

// Is makes errors.Is(err, ErrUnavailable) true.
func (e *NoTicketError) Is(target error) bool { return target == ledger.ErrUnavailable }

// CompleteTicket charges the work that was done on a ticket, once: the admission that it stands for is made now, or the
// one that the same key got online is settled. A ticket that the ledger has not heard of in time is ErrTicketExpired.
func (s *Service) CompleteTicket(ctx context.Context, t *Ticket, actual quota.Credits) (*ledger.Admission, error) {
	id := t.AdmissionID()
	type completed struct {
		adm     *ledger.Admission
		charged bool
		seen    *quota.Chain
	}
	res, err := ask(ctx, s.engine, ledger.Op{Account: t.Account, Admission: id},
		func(l *ledger.Ledger, _ ledger.Batch) (res completed, err error) {
			adm, err := redeem(l, t)
			if err != nil {
				return res, err
			}
			if res.charged, err = settleTicket(l, t, adm, actual); err != nil {
				return res, err
			}
			res.adm, res.seen = l.Snapshot(adm), s.standingOf(l)
			return res, nil
		})
	if errors.Is(err, ledger.ErrNoAccount) {
		return s.completeOnAnother(ctx, t, actual)
	}
	if err != nil {
		return nil, err
	}
	s.remember(res.seen)
	if res.charged {
		s.opts.Metrics.Ticket(TicketSettled)
	}
	s.dropTicket(id)
	return res.adm, nil
}

// completeOnAnother completes a ticket whose account is not there: the database is an earlier copy, and the user has,
// or gets, another account in it.
func (s *Service) completeOnAnother(ctx context.Context, t *Ticket, actual quota.Credits) (*ledger.Admission, error) {
	s.accounts.Remove(t.UserID)
	account, err := s.accountFor(ctx, t.UserID)
	if err != nil {
		return nil, err
	}
	if account == t.Account {
		return nil, quota.NotFound("user %q", t.UserID)
	}
	moved := *t
	moved.Account = account
	return s.CompleteTicket(ctx, &moved, actual)
}

// redeem returns the admission that a ticket is for: the ledger's, or a new one.
func redeem(l *ledger.Ledger, t *Ticket) (*ledger.Admission, error) {
	id := t.AdmissionID()
	adm := l.Admissions[id]
	switch {
	case adm != nil && !bytes.Equal(adm.BodyHash, t.BodyHash):
		return nil, ledger.ErrKeyReused
	case adm != nil:
		return adm, nil
	case l.Account.UserID != t.UserID:
		return nil, quota.NotFound("user %q", t.UserID)
	case !l.Now.Before(t.ExpiresAt):
		return nil, fmt.Errorf("%w: it was good until %s", ErrTicketExpired, t.ExpiresAt.Format(time.RFC3339))
	}
	return &ledger.Admission{
		Admission: quota.Admission{
			ID: id, Source: quota.SourceAPI, Lease: quota.DefaultLease,
			Request: quota.Request{Estimate: t.Estimate, FileSize: t.FileSize},
		},
		UserID: t.UserID, Namespace: t.Namespace, Name: t.Name, RequestedBy: t.RequestedBy, BodyHash: t.BodyHash,
	}, nil
}

func settleTicket(l *ledger.Ledger, t *Ticket, adm *ledger.Admission, actual quota.Credits) (charged bool, err error) {
	fresh := adm.State == ""
	on, err := l.ChainOf(adm)
	if err != nil {
		return false, err
	}
	charge, err := on.SettleOffline(&adm.Admission, actual, on.Closed, l.Now)
	if err != nil || charge == nil {
		return false, err
	}
	if fresh {
		if t.IssuedAt.Before(l.Now) {
			adm.CreatedAt = t.IssuedAt
		}
		l.Add(adm)
	} else {
		l.DropEnded()
	}
	l.Charge(adm, charge, on.Payer().Plan)
	l.Audit = append(l.Audit, quota.AuditRow{
		Actor: quota.CallerActor(
			t.RequestedBy,
		),
		Action: quota.AuditTicketSettled,
		Object: adm.ID.String(),
		After:  t.audit(adm.Offline, actual),
	})
	return true, nil
}

// ReleaseTicket gives a ticket back without a charge, whether the database can be reached or not: it no longer counts
// in this replica. Where the same key was admitted online, that is released too if the ledger can be reached.
func (s *Service) ReleaseTicket(ctx context.Context, t *Ticket) (*ledger.Admission, error) {
	id := t.AdmissionID()
	adm, err := s.on(ctx, t.Account, id, func(l *ledger.Ledger, adm *ledger.Admission) error {
		if !bytes.Equal(adm.BodyHash, t.BodyHash) {
			return ledger.ErrKeyReused
		}
		return end(l, adm, quota.Released)
	})
	if errors.Is(err, ledger.ErrNotFound) || errors.Is(err, ledger.ErrUnavailable) {
		adm, err = t.admission(s.opts.Now(), quota.Released), nil
	}
	if err == nil && s.dropTicket(id) {
		s.opts.Metrics.Ticket(TicketReleased)
	}
	return adm, err
}

// TicketAdmission returns the admission that a ticket stands for, without asking the ledger.
func (s *Service) TicketAdmission(t *Ticket) *ledger.Admission {
	return t.admission(s.opts.Now(), quota.Admitted)
}

// GetTicket returns the admission of a ticket as the ledger knows it, or as the ticket tells where that does not know
// it or cannot be asked.
func (s *Service) GetTicket(ctx context.Context, t *Ticket) (*ledger.Admission, error) {
	adm, err := s.store.Admission(ctx, t.AdmissionID())
	if errors.Is(err, ledger.ErrNotFound) || errors.Is(err, ledger.ErrUnavailable) {
		return s.TicketAdmission(t), nil
	}
	return adm, err
}

func (s *Service) dropTicket(id quota.AdmissionID) (there bool) {
	if s.tickets == nil {
		return false
	}
	there = s.tickets.drop(id)
	s.opts.Metrics.Outstanding(s.tickets.count())
	return there
}

// forgetTickets lets go of the tickets whose work has ended, on whichever replica, and of those that have expired.
func (s *Service) forgetTickets(ctx context.Context) error {
	if s.tickets == nil {
		return nil
	}
	ids := s.tickets.live(s.opts.Now())
	if len(ids) == 0 {
		return nil
	}
	ended, err := s.store.EndedAdmissions(ctx, ids)
	for _, id := range ended {
		s.dropTicket(id)
	}
	return err
}

// standingOf copies what a replica needs to know to give tickets. It is nil for users who will get none.
func (s *Service) standingOf(l *ledger.Ledger) *quota.Chain {
	if s.tickets == nil {
		return nil
	}
	if !l.Chain().Payer().Plan.AdmitWhenUnavailable {
		s.tickets.forget(l.Account.UserID)
		return nil
	}
	return new(l.Standing())
}

func (s *Service) remember(seen *quota.Chain) {
	if s.tickets != nil && seen != nil {
		s.tickets.saw(*seen)
	}
}
