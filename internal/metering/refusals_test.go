// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// deaf does not take what was counted as long as it is deaf.
type deaf struct {
	storage
	deaf bool
}

func (d *deaf) AddRefusals(ctx context.Context, counted []metering.Refusals) error {
	if d.deaf {
		return errors.New("not now")
	}
	return d.storage.AddRefusals(ctx, counted)
}

// What is refused is counted by reason, plan and the plan that would have taken it, is kept while it cannot be written,
// and written when the process ends in order. What is admitted or waits is not counted.
func TestRefusalsAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	store := &deaf{storage: w.store, deaf: true}
	s := newService(store, metering.Options{AutoRegister: true})
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			if _, err := s.Admit(t.Context(), request("alice", fmt.Sprint("large-", n), 100*quota.Credit)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for n, credits := range []quota.Credits{quota.Credit, quota.Credit, 1000 * quota.Credit} {
		if _, err := s.Admit(t.Context(), request("alice", fmt.Sprint(n), credits)); err != nil {
			t.Fatal(err)
		}
	}
	end := func() {
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Run(ended); err != nil {
			t.Fatal(err)
		}
	}
	end()
	store.deaf = false
	end()
	end()
	const counted = `SELECT concat_ws(' ', u.user_id, to_char(at AT TIME ZONE 'UTC', 'DD HH24:MI'), reason, plan_name,
		    served_by, refusals, credits)
		FROM usage_refusals AS r JOIN users AS u ON u.id = r.user_id ORDER BY 1`
	rows, err := w.open(t).Pool().Query(t.Context(), counted)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for rows.Next() {
		var row string
		if err := rows.Scan(&row); err != nil {
			t.Fatal(err)
		}
		got = append(got, row)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"alice 10 12:00 CreditsExhausted free  1 60000000",
		"alice 10 12:00 CreditsExhausted free pro 8 48000000",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
