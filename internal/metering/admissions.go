// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

func (r AdmitRequest) validate() error {
	switch {
	case r.Estimate <= 0 || r.Estimate.Audio() > quota.MaxAudio:
		return fmt.Errorf("%w: the audio duration %s must be above 0 and at most %s", ErrInvalid, r.Estimate.Audio(), quota.MaxAudio)
	case r.FileSize < 0 || r.FileSize > quota.MaxFileSize:
		return fmt.Errorf("%w: the file size of %d bytes must be between 0 and %d", ErrInvalid, r.FileSize, quota.MaxFileSize)
	case r.Priority < -quota.MaxPriority || r.Priority > quota.MaxPriority:
		return fmt.Errorf("%w: the priority %d must be between %d and %d", ErrInvalid, r.Priority, -quota.MaxPriority, quota.MaxPriority)
	case r.Lease < quota.MinLease || r.Lease > quota.MaxLease:
		return fmt.Errorf("%w: the lease of %s must be between %s and %s", ErrInvalid, r.Lease, quota.MinLease, quota.MaxLease)
	case r.ID == quota.ID{}:
		return validateKey(r.Key)
	}
	return nil
}

// Admit decides on a request and books it: admitted, queued, or refused by the decision in the result. Asking again with
// the same ID or Key books nothing and answers with what became of the first; the same Key with another body is ErrKeyReused.
// While the database is away it may be answered with an offline ticket.
func (s *Service) Admit(ctx context.Context, req AdmitRequest) (AdmitResult, error) {
	if req.Lease == 0 {
		req.Lease = quota.DefaultLease
	}
	if err := req.validate(); err != nil {
		return AdmitResult{}, err
	}
	res, err := s.admit(ctx, req)
	if errors.Is(err, ErrUnavailable) {
		return s.admitOffline(ctx, req, err)
	}
	return res, err
}

func (s *Service) admit(ctx context.Context, req AdmitRequest) (AdmitResult, error) {
	account, err := s.accountFor(ctx, req.UserID)
	if err != nil {
		return AdmitResult{}, err
	}
	asked := req
	if (req.ID == quota.ID{}) {
		req.ID = quota.NameID("admission", account, req.Key)
	}
	var res AdmitResult
	var seen *quota.Account
	var now time.Time
	err = s.engine.do(ctx, &call{account: account, admission: req.ID, apply: func(l *Ledger, _ Batch) error {
		res, now = AdmitResult{}, l.Now
		err := enter(l, req, &res)
		seen = s.standingOf(l)
		return err
	}})
	if s.again(err, req.UserID, account) {
		return s.admit(ctx, asked)
	}
	if err != nil {
		return AdmitResult{}, err
	}
	s.remember(seen)
	res.Upgrade = s.upgrade(ctx, res.Account, quota.Request{Estimate: req.Estimate, FileSize: req.FileSize, Queue: req.Queue}, res.Decision, now)
	return res, nil
}

func enter(l *Ledger, req AdmitRequest, res *AdmitResult) error {
	if was := l.Admissions[req.ID]; was != nil {
		if !bytes.Equal(was.BodyHash, req.BodyHash) {
			return ErrKeyReused
		}
		if was.State == quota.Queued && req.Running {
			l.resume(was)
		}
		res.Decision = l.Account.Enter(&was.Admission, l.Now)
		res.Admission, res.Account = l.snapshot(was), l.account()
		return nil
	}
	adm := &Admission{
		Admission: quota.Admission{
			ID: req.ID, Source: req.Source, Priority: req.Priority, Enforced: !req.WarnOnly && !req.Running, Lease: req.Lease,
			Request: quota.Request{Estimate: req.Estimate, FileSize: req.FileSize, Queue: req.Queue},
		},
		UserID: l.Account.UserID, Namespace: req.Namespace, Name: req.Name, RequestedBy: req.RequestedBy, BodyHash: req.BodyHash,
	}
	res.Account = l.account()
	res.Decision = l.Account.Enter(&adm.Admission, l.Now)
	if adm.State == "" && (!req.Park || !l.Account.Park(&adm.Admission, res.Decision, l.Now)) {
		return nil
	}
	l.add(adm)
	res.Admission, res.Created = l.snapshot(adm), true
	return nil
}

// resume admits work that waits in the ledger and runs in truth.
func (l *Ledger) resume(adm *Admission) {
	l.Account.Resume(&adm.Admission, l.Now)
	l.Queue = slices.DeleteFunc(l.Queue, func(q *Admission) bool { return q.State != quota.Queued })
}

// add books a new admission in the ledger.
func (l *Ledger) add(adm *Admission) {
	l.Admissions[adm.ID] = adm
	if adm.State == quota.Queued {
		i, _ := slices.BinarySearchFunc(l.Queue, adm, QueueOrder)
		l.Queue = slices.Insert(l.Queue, i, adm)
	}
}

// snapshot copies an admission for its caller, with its place in the queue.
func (l *Ledger) snapshot(adm *Admission) *Admission {
	c := *adm
	c.Position, c.Waiting = 0, 0
	if c.State == quota.Queued {
		for _, q := range l.Queue {
			if !q.Parked {
				c.Waiting++
			}
			if q.ID == c.ID {
				c.Position = c.Waiting
			}
		}
		if c.Parked {
			c.Position = 0
		}
	}
	return &c
}

// account copies the account for a caller.
func (l *Ledger) account() *quota.Account {
	a := *l.Account
	a.Lots = slices.Clone(a.Lots)
	return &a
}

// on runs an operation on an existing admission and returns what became of it.
func (s *Service) on(ctx context.Context, account, id quota.ID, op func(l *Ledger, adm *Admission) error) (*Admission, error) {
	if (account == quota.ID{}) {
		adm, err := s.store.Admission(ctx, id)
		if err != nil {
			return nil, err
		}
		account = adm.Account
	}
	var res *Admission
	var seen *quota.Account
	err := s.engine.do(ctx, &call{account: account, admission: id, apply: func(l *Ledger, _ Batch) error {
		res = nil
		adm := l.Admissions[id]
		if adm == nil {
			return fmt.Errorf("admission %x: %w", id, ErrNotFound)
		}
		if err := op(l, adm); err != nil {
			return err
		}
		res, seen = l.snapshot(adm), s.standingOf(l)
		return nil
	}})
	if err == nil {
		s.remember(seen)
	}
	return res, err
}

// Heartbeat renews the lease of a queued or admitted admission. The account may be zero: it is looked up then.
func (s *Service) Heartbeat(ctx context.Context, account, id quota.ID) (*Admission, error) {
	return s.on(ctx, account, id, func(l *Ledger, adm *Admission) error {
		return adm.Heartbeat(l.Now)
	})
}

// Complete ends an admission with what it used, and charges exactly that, once. For a Job's admission it records the report
// and leaves the charge to the Job controller. The first actual wins: another one is a quota.Conflict.
func (s *Service) Complete(ctx context.Context, account, id quota.ID, actual quota.Credits) (*Admission, error) {
	return s.on(ctx, account, id, func(l *Ledger, adm *Admission) error {
		if adm.Source == quota.SourceJob {
			return adm.Report(actual)
		}
		return settle(l, adm, actual)
	})
}

// Release returns the slot and the reservation of an admission, or its place in the queue, without a charge.
func (s *Service) Release(ctx context.Context, account, id quota.ID) (*Admission, error) {
	return s.on(ctx, account, id, func(l *Ledger, adm *Admission) error {
		if adm.Source == quota.SourceJob {
			return &quota.Conflict{State: adm.State, What: "a Job's admission is released by deleting the Job"}
		}
		return end(l, adm, quota.Released)
	})
}

// SettleJob ends a Job's admission once the Job is over: it charges what the pod reported, else fallback if that is above
// zero, else it releases.
func (s *Service) SettleJob(ctx context.Context, id quota.ID, fallback quota.Credits) (*Admission, error) {
	return s.on(ctx, quota.ID{}, id, func(l *Ledger, adm *Admission) error {
		switch {
		case adm.Source != quota.SourceJob:
			return &quota.Conflict{State: adm.State, What: "it is not a Job's: its holder completes or releases it"}
		case adm.State == quota.Settled || adm.State == quota.Released || adm.State == quota.Cancelled:
			return nil
		case adm.State != quota.Queued && adm.Reported != nil:
			return settle(l, adm, *adm.Reported)
		case adm.State != quota.Queued && fallback > 0:
			return settle(l, adm, fallback)
		}
		return end(l, adm, quota.Released)
	})
}

// Requeue puts an admitted admission behind everything that waits, for a holder that could not begin: its slot and its
// reservation return. stay is the AdmittedSeq of what is given up; if the admission has left that already, and may have been
// admitted again since, nothing happens. It answers how it stands then: Admitted, if its turn has come at once.
func (s *Service) Requeue(ctx context.Context, id quota.ID, stay int64) (*Admission, error) {
	return s.on(ctx, quota.ID{}, id, func(l *Ledger, adm *Admission) error {
		if adm.State == quota.Admitted && adm.AdmittedSeq != stay {
			return nil
		}
		period, err := l.closed(adm)
		if err != nil {
			return err
		}
		ended, err := l.Account.Requeue(&adm.Admission, period, l.Now)
		if err != nil || ended == nil {
			return err
		}
		l.add(&Admission{
			Admission: *ended, UserID: adm.UserID, Namespace: adm.Namespace, Name: adm.Name, RequestedBy: adm.RequestedBy,
			BodyHash: adm.BodyHash,
		})
		l.add(adm)
		return nil
	})
}

func settle(l *Ledger, adm *Admission, actual quota.Credits) error {
	period, err := l.closed(adm)
	if err != nil {
		return err
	}
	plan := l.Account.Plan
	charge, err := l.Account.Settle(&adm.Admission, actual, period, l.Now)
	if err != nil || charge == nil {
		return err
	}
	l.charged(adm, charge, plan)
	return nil
}

// charged books the one event that an admission can make.
func (l *Ledger) charged(adm *Admission, c *quota.Charge, plan *quota.Plan) {
	e := chargeEvent(ChargeID(l.Account.ID, adm.ID), c, plan)
	e.Account, e.UserID, e.UsageType, e.Admission = l.Account.ID, l.Account.UserID, quota.UsageTranscription, adm.ID
	e.OccurredAt, e.RecordedAt, e.Duration, e.FileSize, e.Late = adm.EndedAt, l.Now, c.Credits.Audio(), adm.Request.FileSize, adm.Late
	l.Booked = append(l.Booked, Made{Event: e})
}

// ChargeID is the id of the one charge that an admission can have.
func ChargeID(account, admission quota.ID) quota.ID {
	return quota.NameID("charge", account, uuid.UUID(admission).String())
}

func end(l *Ledger, adm *Admission, to quota.State) error {
	if !adm.State.Live() && adm.State != quota.Settled {
		return nil
	}
	period, err := l.closed(adm)
	if err != nil {
		return err
	}
	if err := l.Account.End(&adm.Admission, to, "", period, l.Now); err != nil {
		return err
	}
	l.Queue = slices.DeleteFunc(l.Queue, func(q *Admission) bool { return q.State != quota.Queued })
	return nil
}

// RenewJobs renews the leases of the Jobs that the controller sees alive. Those that have ended meanwhile are left alone.
func (s *Service) RenewJobs(ctx context.Context, jobs []*Admission) error {
	return each(len(jobs), func(i int) error {
		_, err := s.Heartbeat(ctx, jobs[i].Account, jobs[i].ID)
		if errors.Is(err, quota.ErrConflict) || errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	})
}
