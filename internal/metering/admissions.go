// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

func (r AdmitRequest) validate() error {
	switch {
	case r.Estimate <= 0 || r.Estimate.Audio() > quota.MaxAudio:
		return quota.Invalid("audio duration", "%s must be above 0 and at most %s", r.Estimate.Audio(), quota.MaxAudio)
	case r.FileSize < 0 || r.FileSize > quota.MaxFileSize:
		return quota.Invalid("file size", "%d bytes must be between 0 and %d", r.FileSize, quota.MaxFileSize)
	case r.Priority < -quota.MaxPriority || r.Priority > quota.MaxPriority:
		return quota.Invalid("priority", "%d must be between %d and %d", r.Priority, -quota.MaxPriority,
			quota.MaxPriority)
	case r.Lease < quota.MinLease || r.Lease > quota.MaxLease:
		return quota.Invalid("lease", "%s must be between %s and %s", r.Lease, quota.MinLease, quota.MaxLease)
	case r.ID == quota.ID{}:
		return validateKey(r.Key)
	}
	return nil
}

// Admit decides on a request and books it: admitted, queued, or refused by the decision in the result. Asking again
// with the same ID or Key books nothing and answers with what became of the first; the same Key with another body is
// ErrKeyReused. While the database is away it may be answered with an offline ticket.
func (s *Service) Admit(ctx context.Context, req AdmitRequest) (AdmitResult, error) {
	if req.Lease == 0 {
		req.Lease = quota.DefaultLease
	}
	if err := req.validate(); err != nil {
		return AdmitResult{}, err
	}
	res, err := s.admit(ctx, req)
	if errors.Is(err, ledger.ErrUnavailable) {
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
	type entered struct {
		AdmitResult
		seen *quota.Chain
		now  time.Time
	}
	res, err := ask(ctx, s.engine, ledger.Op{Account: account, Admission: req.ID},
		func(l *ledger.Ledger, _ ledger.Batch) (res entered, err error) {
			err = enter(l, req, &res.AdmitResult)
			res.seen, res.now = s.standingOf(l), l.Now
			return res, err
		})
	if s.again(err, req.UserID, account) {
		return s.admit(ctx, asked)
	}
	if err != nil {
		return AdmitResult{}, err
	}
	s.remember(res.seen)
	if adm := res.Admission; adm != nil && adm.Waiting > 0 && adm.Position == 0 && !adm.Parked {
		// Within a long queue its place has to be counted, which holds up nobody here.
		if res.Admission, err = s.store.Admission(ctx, adm.ID); err != nil {
			return AdmitResult{}, err
		}
	}
	res.Upgrade = s.upgrade(ctx, res.On,
		quota.Request{Estimate: req.Estimate, FileSize: req.FileSize, Queue: req.Queue}, res.Decision, res.now)
	if res.Admission == nil {
		refused := CheckResult{Decision: res.Decision, On: res.On, Upgrade: res.Upgrade, Now: res.now}
		s.CountRefusal(&refused, req.Estimate)
	}
	return res.AdmitResult, nil
}

// enter decides on a request.
func enter(l *ledger.Ledger, req AdmitRequest, res *AdmitResult) error {
	if was := l.Admissions[req.ID]; was != nil {
		if !bytes.Equal(was.BodyHash, req.BodyHash) {
			return ledger.ErrKeyReused
		}
		if was.State == quota.Queued && req.Running {
			resume(l, was)
		}
		res.On = l.Standing()
		res.Decision = l.Chain().Enter(&was.Admission, l.Now)
		res.Admission = l.Snapshot(was)
		return nil
	}
	adm := &ledger.Admission{
		Admission: quota.Admission{
			ID: req.ID, Source: req.Source, Priority: req.Priority, Enforced: !req.WarnOnly && !req.Running,
			Lease:   req.Lease,
			Request: quota.Request{Estimate: req.Estimate, FileSize: req.FileSize, Queue: req.Queue},
		},
		UserID: l.Account.UserID, Namespace: req.Namespace, Name: req.Name, RequestedBy: req.RequestedBy,
		BodyHash: req.BodyHash, Cluster: req.Cluster,
	}
	chain := l.Chain()
	res.On = l.Standing()
	res.Decision = chain.Enter(&adm.Admission, l.Now)
	if adm.State == "" && (!req.Park || !chain.Park(&adm.Admission, res.Decision, l.Now)) {
		return nil
	}
	l.Add(adm)
	res.Admission, res.Created = l.Snapshot(adm), true
	return nil
}

// resume admits work that waits in the ledger and runs in truth.
func resume(l *ledger.Ledger, adm *ledger.Admission) {
	l.Chain().Resume(&adm.Admission, l.Now)
	l.DropEnded()
}

// on runs an operation on an existing admission and returns what became of it.
func (s *Service) on(
	ctx context.Context,
	account quota.AccountID,
	id quota.AdmissionID,
	op func(l *ledger.Ledger, adm *ledger.Admission) error,
) (*ledger.Admission, error) {
	if (account == quota.ID{}) {
		adm, err := s.store.Admission(ctx, id)
		if err != nil {
			return nil, err
		}
		account = adm.Account
	}
	type became struct {
		adm  *ledger.Admission
		seen *quota.Chain
	}
	res, err := ask(ctx, s.engine, ledger.Op{Account: account, Admission: id},
		func(l *ledger.Ledger, _ ledger.Batch) (res became, err error) {
			adm := l.Admissions[id]
			if adm == nil {
				return res, quota.NotFound("admission %s", id)
			}
			if err := op(l, adm); err != nil {
				return res, err
			}
			return became{l.Snapshot(adm), s.standingOf(l)}, nil
		})
	if err == nil {
		s.remember(res.seen)
	}
	return res.adm, err
}

// Heartbeat renews the lease of a queued or admitted admission. The account may be zero: it is looked up then.
func (s *Service) Heartbeat(
	ctx context.Context, account quota.AccountID, id quota.AdmissionID,
) (*ledger.Admission, error) {
	return s.on(ctx, account, id, func(l *ledger.Ledger, adm *ledger.Admission) error {
		return adm.Heartbeat(l.Now)
	})
}

// Complete ends an admission with what it used, and charges exactly that, once. For a Job's admission it records the
// report and leaves the charge to the Job controller. The first actual wins: another one is a quota.Conflict.
func (s *Service) Complete(
	ctx context.Context, account quota.AccountID, id quota.AdmissionID, actual quota.Credits,
) (*ledger.Admission, error) {
	return s.on(ctx, account, id, func(l *ledger.Ledger, adm *ledger.Admission) error {
		if adm.Source == quota.SourceJob {
			return adm.Report(actual)
		}
		return settle(l, adm, actual)
	})
}

// Release returns the slot and the reservation of an admission, or its place in the queue, without a charge.
func (s *Service) Release(
	ctx context.Context, account quota.AccountID, id quota.AdmissionID,
) (*ledger.Admission, error) {
	return s.on(ctx, account, id, func(l *ledger.Ledger, adm *ledger.Admission) error {
		if adm.Source == quota.SourceJob {
			return quota.Unfit(adm.State, "a Job's admission is released by deleting the Job")
		}
		return end(l, adm, quota.Released)
	})
}

// ForceRelease ends an admission for somebody who does not hold it, as Release does, and writes down who and why. One
// that has ended already stays as it is.
func (s *Service) ForceRelease(
	ctx context.Context, account quota.AccountID, id quota.AdmissionID, reason, actor string,
) (*ledger.Admission, error) {
	if err := quota.CheckReason(reason); err != nil {
		return nil, err
	}
	return s.on(ctx, account, id, func(l *ledger.Ledger, adm *ledger.Admission) error {
		switch {
		case adm.Source == quota.SourceJob:
			return quota.Unfit(adm.State, "a Job's admission is released by deleting the Job")
		case !adm.State.Live():
			return quota.Unfit(adm.State, "only what is queued or admitted can be released")
		}
		told := func() quota.AuditRelease {
			held := quota.Credits(0)
			if adm.State == quota.Admitted {
				held = adm.Request.Estimate
			}
			return quota.AuditRelease{State: adm.State, Reserved: held}
		}
		before := told()
		if err := end(l, adm, quota.Released); err != nil {
			return err
		}
		adm.ReleaseReason = reason
		l.Audit = append(l.Audit, quota.AuditRow{
			Actor: quota.CallerActor(actor), Action: quota.AuditAdmissionReleased, Object: adm.ID.String(),
			Before: before, After: told(),
		})
		return nil
	})
}

// SettleJob ends a Job's admission once the Job is over: it charges what the pod reported, else fallback if that is
// above zero, else it releases.
func (s *Service) SettleJob(
	ctx context.Context, id quota.AdmissionID, fallback quota.Credits,
) (*ledger.Admission, error) {
	return s.on(ctx, quota.ID{}, id, func(l *ledger.Ledger, adm *ledger.Admission) error {
		switch {
		case adm.Source != quota.SourceJob:
			return quota.Unfit(adm.State, "it is not a Job's: its holder completes or releases it")
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
// reservation return. stay is the AdmittedSeq of what is given up; if the admission has left that already, and may have
// been admitted again since, nothing happens. It answers how it stands then: Admitted, if its turn has come at once.
func (s *Service) Requeue(ctx context.Context, id quota.AdmissionID, stay int64) (*ledger.Admission, error) {
	return s.on(ctx, quota.ID{}, id, func(l *ledger.Ledger, adm *ledger.Admission) error {
		if adm.State == quota.Admitted && adm.AdmittedSeq != stay {
			return nil
		}
		on, err := l.ChainOf(adm)
		if err != nil {
			return err
		}
		ended, err := l.Chain().Requeue(&adm.Admission, on.Chain, on.Closed, l.Now)
		if err != nil || ended == nil {
			return err
		}
		l.Add(&ledger.Admission{
			Admission: *ended, UserID: adm.UserID, Namespace: adm.Namespace, Name: adm.Name,
			RequestedBy: adm.RequestedBy, BodyHash: adm.BodyHash, Cluster: adm.Cluster,
		})
		l.Add(adm)
		return nil
	})
}

func settle(l *ledger.Ledger, adm *ledger.Admission, actual quota.Credits) error {
	on, err := l.ChainOf(adm)
	if err != nil {
		return err
	}
	charge, err := on.Settle(&adm.Admission, actual, on.Closed, l.Now)
	if err != nil || charge == nil {
		return err
	}
	l.Charge(adm, charge, on.Payer().Plan)
	return nil
}

func end(l *ledger.Ledger, adm *ledger.Admission, to quota.State) error {
	if !adm.State.Live() && adm.State != quota.Settled {
		return nil
	}
	on, err := l.ChainOf(adm)
	if err != nil {
		return err
	}
	if err := on.End(&adm.Admission, to, "", on.Closed, l.Now); err != nil {
		return err
	}
	l.DropEnded()
	return nil
}

// RenewJobs renews the leases of the Jobs that the controller sees alive. Those that have ended meanwhile are left
// alone.
func (s *Service) RenewJobs(ctx context.Context, jobs []*ledger.Admission) error {
	return each(len(jobs), func(i int) error {
		_, err := s.Heartbeat(ctx, jobs[i].Account, jobs[i].ID)
		if errors.Is(err, quota.ErrConflict) || errors.Is(err, ledger.ErrNotFound) {
			return nil
		}
		return butUnreadable(err)
	})
}
