// SPDX-License-Identifier: Apache-2.0

package ledgerdb_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// TestCommitWritesWhatDiffers changes every field of everything that a batch holds, one by one, and finds each in the
// database afterwards, or finds that the commit refused it. A field that is added to one of the types is covered by
// that.
func TestCommitWritesWhatDiffers(t *testing.T) {
	t.Parallel()
	f := newCorruptible(t)
	if err := f.ApplyPlan(t.Context(), plan("pro"), "test"); err != nil {
		t.Fatal(err)
	}
	account := f.register("alice")
	adm := quota.ID{7}
	f.enter(account, adm, quota.Credit)
	f.settle(account, adm, quota.Credit)
	f.clock.advance(40 * 24 * time.Hour)
	f.change(ledger.Keys{Accounts: []quota.AccountID{account}}, func(_ ledger.Batch, l *ledger.Ledger) {
		f.roll(l)
		l.Account.Lots = append(l.Account.Lots, quota.Lot{
			ID: quota.ID{9}, Kind: quota.LotGrant, Name: "gift", Credits: quota.Credit,
			ExpiresAt: f.clock.read().Add(time.Hour),
		})
	})
	f.dropChecks()

	keys := ledger.Keys{
		Accounts:   []quota.AccountID{account},
		Admissions: []quota.AdmissionID{adm},
		Plans:      []string{"pro"},
	}
	// In this order, because the period is found by the admission's number of it.
	for _, tc := range []struct {
		name string
		// of returns what is changed, a pointer.
		of func(l *ledger.Ledger) any
		// fixed are the fields that never change once they are stored, derived those that the store fills in.
		fixed, derived string
	}{
		{
			name: "account",
			of:   func(l *ledger.Ledger) any { return l.Account },
			// Alerts are what Commit finds, see quota.Chain.Alert.
			derived: "ID UserID Team Plan Zone Lots Contended Alerts",
		},
		{
			name: "settings",
			of:   func(l *ledger.Ledger) any { return &l.Settings }, derived: "ZoneName MemberOf",
		},
		{
			name:  "lot",
			of:    func(l *ledger.Ledger) any { return &l.Account.Lots[0] },
			fixed: "Kind Name ExpiresAt", derived: "ID",
		},
		{
			name:  "period",
			of:    func(l *ledger.Ledger) any { return l.Closed[0] },
			fixed: "Period.Start Period.End PlanLimit PlanName PlanVersion CarryOverMax Grace Currency OveragePrice No",
		},
		{
			name:  "admission",
			of:    func(l *ledger.Ledger) any { return &l.Admissions[adm].Admission },
			fixed: "Account Source Request.Estimate Request.FileSize Request.Queue Priority Enforced CreatedAt Lease",
			// A state that means nothing cannot be read, nor can levels of accounts that are not there.
			derived: "ID State Levels",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, field := range leaves(reflect.TypeOf(tc.of(f.load(keys))).Elem()) {
				if has(tc.derived, field.name) {
					continue
				}
				var want any
				err := f.tryChange(t.Context(), keys, func(_ ledger.Batch, l *ledger.Ledger) {
					v := reflect.ValueOf(tc.of(l)).Elem()
					alter(v.FieldByIndex(field.index))
					want = v.FieldByIndex(field.index).Interface()
				})
				if fixed := has(tc.fixed, field.name); fixed != errors.Is(err, ledgerdb.ErrFixed) ||
					!fixed && err != nil {
					t.Errorf("%s: fixed is %t, and the commit says: %v", field.name, fixed, err)
					continue
				}
				if has(tc.fixed, field.name) {
					continue
				}
				got := reflect.ValueOf(tc.of(f.load(keys))).Elem().FieldByIndex(field.index).Interface()
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s is not written (-want +got):\n%s", field.name, diff)
				}
			}
		})
	}

	t.Run("plan", func(t *testing.T) {
		f.change(keys, func(b ledger.Batch, l *ledger.Ledger) { l.Account.Plan = b.Plan("pro") })
		if got := f.load(keys).Account.Plan.Name; got != "pro" {
			t.Errorf("the plan is %q", got)
		}
	})
	t.Run("team", func(t *testing.T) {
		team := f.team(9, "newsroom", nil, "")
		f.change(keys, func(_ ledger.Batch, l *ledger.Ledger) { l.Settings.MemberOf = team })
		if got := f.load(keys).Settings.MemberOf; got != team {
			t.Errorf("the team is %s", got)
		}
	})
	t.Run("zone", func(t *testing.T) {
		f.change(keys, func(_ ledger.Batch, l *ledger.Ledger) { l.Settings.ZoneName = "Asia/Hong_Kong" })
		if got := f.load(keys).Account.Zone.String(); got != "Asia/Hong_Kong" {
			t.Errorf("the zone is %q", got)
		}
	})
}

// load returns the ledger of the first account as it is stored.
func (f *fixture) load(keys ledger.Keys) *ledger.Ledger {
	f.t.Helper()
	b, err := f.Begin(f.t.Context(), keys)
	if err != nil {
		f.t.Fatal(err)
	}
	defer b.Rollback()
	return b.Ledgers()[keys.Accounts[0]]
}

// dropChecks lets the tables take values that mean nothing.
func (f *fixture) dropChecks() {
	f.t.Helper()
	f.exec(`DO $$ DECLARE c record; BEGIN
		FOR c IN SELECT conrelid::regclass AS of, conname FROM pg_constraint WHERE contype IN ('c', 'f') AND conrelid
		    <> 0
			AND connamespace = 'public'::regnamespace AND coninhcount = 0
		LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.of, c.conname); END LOOP; END $$`)
}

func has(names, name string) bool {
	for n := range strings.FieldsSeq(names) {
		if n == name || strings.HasPrefix(name, n+".") {
			return true
		}
	}
	return false
}

type leaf struct {
	name  string
	index []int
}

// leaves are the fields that a struct is made of in the end; instants and limits count as one each.
func leaves(t reflect.Type) []leaf {
	var out []leaf
	for f := range t.Fields() {
		if f.Type.Kind() != reflect.Struct || f.Type == reflect.TypeFor[time.Time]() ||
			strings.HasPrefix(f.Type.Name(), "Limit[") {
			out = append(out, leaf{name: f.Name, index: f.Index})
			continue
		}
		for _, inner := range leaves(f.Type) {
			name := f.Name + "." + inner.name
			if f.Anonymous {
				name = inner.name
			}
			out = append(out, leaf{name: name, index: append(f.Index[:1:1], inner.index...)})
		}
	}
	return out
}

// alter makes a value another one.
func alter(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int32, reflect.Int64:
		step := int64(1)
		if v.Type() == reflect.TypeFor[time.Duration]() {
			step = int64(time.Second)
		}
		v.SetInt(v.Int() + step)
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Array:
		v.Index(0).SetUint(v.Index(0).Uint() + 1)
	case reflect.Pointer:
		next := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			next.Elem().Set(v.Elem())
		}
		alter(next.Elem())
		v.Set(next)
	case reflect.Slice:
		next := reflect.New(v.Type().Elem()).Elem()
		for _, field := range next.Fields() {
			alter(field)
		}
		v.Set(reflect.Append(v, next))
	case reflect.Struct:
		if at, ok := reflect.TypeAssert[time.Time](v); ok {
			v.Set(reflect.ValueOf(at.Add(24 * time.Hour)))
			return
		}
		alter(v.Field(0)) // a limit's bound
	default:
		panic("a field of kind " + v.Kind().String())
	}
}
