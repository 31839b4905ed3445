// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
)

// creditStep is what a thousandth of a credit is in the ledger's unit.
const creditStep = 60

// use is one that a client has recorded without an admission.
type use struct {
	user, key string
	credits   int64 // in the ledger's unit
	// id is that of the event that was acknowledged.
	id string
	// reversed says that its reversal was acknowledged, reversing that it was asked for.
	reversed, reversing bool
}

// record charges a use directly, and sometimes again, and sometimes takes it back.
func (w *worker) record(ctx context.Context) error {
	w.serial++
	thousandths := w.random.Int64N(5000) + 1
	u := &use{user: w.pickUser(), key: fmt.Sprintf("%s-%d", w.name, w.serial), credits: thousandths * creditStep}
	w.uses = append(w.uses, u)
	r := request{
		method: http.MethodPost, path: "/api/v1/usage", authorization: w.token, key: u.key,
		body: fmt.Sprintf(`{"user_id":%q,"usage_type":"export","credits":%d.%03d}`, u.user, thousandths/1000,
			thousandths%1000),
	}
	a, err := w.call(ctx, r)
	if err != nil {
		return err
	}
	if a.status == http.StatusOK {
		w.report.duplicates.Add(1)
	}
	if u.id = a.ID; a.CreditsMS != u.credits {
		w.report.violationf("user %s, key %s: a use of %d was recorded as one of %d", u.user, u.key, u.credits,
			a.CreditsMS)
	}
	if w.chance(25) {
		if a, err = w.call(ctx, r); err != nil {
			return err
		}
		w.report.duplicates.Add(1)
		if a.status != http.StatusOK || a.ID != u.id {
			w.report.violationf("user %s, key %s recorded again: status %d and event %s, want 200 and %s", u.user,
				u.key, a.status, a.ID, u.id)
		}
	}
	if w.chance(15) {
		return w.reverse(ctx, u)
	}
	return nil
}

func (w *worker) reverse(ctx context.Context, u *use) error {
	u.reversing = true
	r := request{
		method: http.MethodPost, path: "/api/v1/usage/" + u.id + "/reverse", authorization: w.token,
		key:  u.key + "-reverse",
		body: `{"reason":"it was not wanted"}`,
	}
	a, err := w.call(ctx, r)
	if err != nil {
		return err
	}
	u.reversed = true
	if a.status != http.StatusCreated && a.status != http.StatusOK {
		w.report.violationf("event %s reversed: status %d: %s", u.id, a.status, a.Detail)
	}
	// A second reversal of the same event, under a key of its own, finds it undone.
	if w.chance(30) {
		r.key += "-again"
		if a, err = w.call(ctx, r); err == nil && a.status != http.StatusConflict {
			w.report.violationf("event %s reversed a second time: status %d, want 409", u.id, a.status)
		}
		w.report.duplicates.Add(1)
	}
	return err
}

// event is one that belongs to no admission, as the database has it.
type event struct {
	ID, User, Kind, Reverses string
	Credits                  int64
}

// compareUses holds the uses that were acknowledged against the events.
func compareUses(uses []*use, events []*event, v *verdict) {
	charges, reversals := map[string]*event{}, map[string][]*event{}
	for _, e := range events {
		if e.Kind == "reversal" {
			reversals[e.Reverses] = append(reversals[e.Reverses], e)
		} else {
			charges[e.ID] = e
		}
	}
	for _, u := range uses {
		if u.id == "" {
			continue // never answered; the run has failed anyway
		}
		who := fmt.Sprintf("user %s, key %s, event %s", u.user, u.key, u.id)
		e := charges[u.id]
		delete(charges, u.id)
		switch {
		case e == nil:
			v.losef("%s: acknowledged, and not in the database", who)
			continue
		case e.User != u.user || e.Credits != u.credits:
			v.violatef("%s: the database has it for user %s with %d, acknowledged were %d", who, e.User,
				e.Credits, u.credits)
		}
		undone := reversals[u.id]
		delete(reversals, u.id)
		switch {
		case u.reversed && len(undone) == 0:
			v.losef("%s: its reversal was acknowledged, and is not in the database", who)
		case len(undone) > 1, len(undone) == 1 && (!u.reversing || undone[0].Credits != u.credits):
			v.violatef("%s: reversed %d times, asked for: %t", who, len(undone), u.reversing)
		}
	}
	left := make([]*event, 0, len(charges))
	for _, e := range charges {
		left = append(left, e)
	}
	for _, e := range reversals {
		left = append(left, e...)
	}
	slices.SortFunc(left, func(x, y *event) int { return slices.Compare([]byte(x.ID), []byte(y.ID)) })
	for _, e := range left {
		v.violatef("%s %s of user %s: nobody asked for it", e.Kind, e.ID, e.User)
	}
}
