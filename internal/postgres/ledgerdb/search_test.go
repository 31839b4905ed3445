// SPDX-License-Identifier: Apache-2.0

package ledgerdb_test

import (
	"fmt"
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// What cannot be read is missing in the lists of admissions, and they go on behind it.
func TestListsGoOnBehindWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	f := newCorruptible(t)
	alice := f.register("alice")
	for i := range 6 {
		f.exec(fmt.Sprintf(`INSERT INTO concurrent_processing (id, user_id, source, state, estimate, file_size,
		        created_at, lease_ms, lease_until, arrived_seq, admitted_seq, admitted_at, period_no, enforced, lots)
		    VALUES ('%x', '%x', 'api', 'Admitted', 1000, 1000, '2026-03-01', 1000, '2026-03-01', %[3]d, %[3]d,
		        '2026-03-01', 0, false, CASE WHEN %[3]d IN (2, 3) THEN jsonb '"of a later release"' END)`,
			quota.ID{byte(i)}, alice, i+1))
	}
	lists := reports.New(f.Store, nil)
	var byArrival, stuck []int64
	for before, more := int64(0), true; more; more = before != 0 {
		page, next, err := lists.Admissions(t.Context(), "alice",
			reports.AdmissionFilter{States: reports.Uncharged}, before, 2)
		if err != nil {
			t.Fatal(err)
		}
		byArrival, before = append(byArrival, seqs(page)...), next
	}
	for behind, more := (reports.Place{}), true; more; more = behind != (reports.Place{}) {
		page, next, err := lists.StuckAdmissions(t.Context(), "", behind, 2)
		if err != nil {
			t.Fatal(err)
		}
		stuck, behind = append(stuck, seqs(page)...), next
	}
	if got, want := fmt.Sprint(byArrival, stuck), "[6 5 4 1] [1 4 5 6]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func seqs(page []*ledger.Admission) (out []int64) {
	for _, adm := range page {
		out = append(out, adm.ArrivedSeq)
	}
	return out
}
