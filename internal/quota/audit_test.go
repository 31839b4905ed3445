// SPDX-License-Identifier: Apache-2.0

package quota_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/doctable"
)

// rowOf returns a row that can have the states, or false: its action decides which.
func rowOf(action quota.AuditAction, before, after quota.AuditState) (quota.AuditRow, bool) {
	row := quota.AuditRow{Actor: quota.SystemActor, Action: action, Object: "it", Before: before, After: after}
	_, _, err := row.Encode()
	return row, err == nil
}

// TestAuditRoundTrip writes any row of any action and reads it again.
func TestAuditRoundTrip(t *testing.T) {
	t.Parallel()
	tried := map[quota.AuditAction]bool{}
	for _, action := range quota.AuditActions() {
		for _, before := range auditNamed {
			for _, after := range auditNamed {
				if _, fits := rowOf(action, before, after); !fits {
					continue
				}
				tried[action] = true
				rapid.Check(t, func(t *rapid.T) {
					row, fits := rowOf(action, anyState(t, before), anyState(t, after))
					if !fits {
						t.Fatalf("%s: %+v cannot be written", action, row)
					}
					was, is, err := row.Encode()
					if err != nil {
						t.Fatal(err)
					}
					gotBefore, gotAfter, err := quota.DecodeAudit(quota.AuditVersion, action, was, is)
					if err != nil {
						t.Fatalf("%s, %s: %v", was, is, err)
					}
					if diff := cmp.Diff([]any{row.Before, row.After}, []any{gotBefore, gotAfter}); diff != "" {
						t.Fatal(diff)
					}
				})
			}
		}
	}
	for _, action := range quota.AuditActions() {
		if !tried[action] {
			t.Errorf("no struct fits %s", action)
		}
	}
}

// anyState returns a state of the same struct as the given one, every field of which says anything.
func anyState(t *rapid.T, like quota.AuditState) quota.AuditState {
	if like == nil {
		return nil
	}
	state := reflect.New(reflect.TypeOf(like)).Elem()
	anything(t, state)
	return state.Interface().(quota.AuditState)
}

func anything(t *rapid.T, v reflect.Value) {
	if limit, ok := reflect.TypeAssert[json.Unmarshaler](v.Addr()); ok &&
		v.Type() != reflect.TypeFor[time.Time]() && v.Type() != reflect.TypeFor[quota.AuditAccount]() {
		text := `"unlimited"`
		if rapid.Bool().Draw(t, "limited") {
			text = fmt.Sprint(rapid.Int32().Draw(t, "limit"))
		}
		if err := limit.UnmarshalJSON([]byte(text)); err != nil {
			t.Fatal(err)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if rapid.Bool().Draw(t, "there") {
			v.Set(reflect.New(v.Type().Elem()))
			anything(t, v.Elem())
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.UnixMicro(rapid.Int64Range(0, 1<<52).Draw(t, "time")).UTC()))
			return
		}
		for _, field := range v.Fields() {
			anything(t, field)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), rapid.IntRange(0, 3).Draw(t, "length"), 3))
		for i := range v.Len() {
			anything(t, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range rapid.IntRange(0, 3).Draw(t, "length") {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			anything(t, key)
			anything(t, value)
			v.SetMapIndex(key, value)
		}
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(uint64(rapid.Byte().Draw(t, "byte")))
		}
	case reflect.String:
		v.SetString(rapid.String().Draw(t, "text"))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.Int32:
		v.SetInt(int64(rapid.Int32().Draw(t, "number")))
	case reflect.Int64:
		v.SetInt(rapid.Int64().Draw(t, "number"))
	default:
		t.Fatalf("no %s was ever in an audit row", v.Type())
	}
}

func TestAuditRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		version       int
		action        quota.AuditAction
		before, after string
		want          string
	}{
		"the format of before":  {1, quota.AuditGrantGiven, "", "{}", "version 1"},
		"the format of after":   {3, quota.AuditGrantGiven, "", "{}", "version 3"},
		"an unknown action":     {2, "grant.taken", "", "{}", `no action "grant.taken"`},
		"an unknown field":      {2, quota.AuditGrantGiven, "", `{"credits": "1.5"}`, `unknown field "credits"`},
		"nothing":               {2, quota.AuditPlanChanged, "", "{}", "before: nothing"},
		"something":             {2, quota.AuditGrantGiven, "{}", "{}", "before: \"{}\", it must be nothing"},
		"an id as numbers":      {2, quota.AuditGrantGiven, "", `{"lot": [1, 2]}`, "after"},
		"an id without dashes":  {2, quota.AuditGrantGiven, "", `{"lot": "0198a1b2000070008000000000000001"}`, "UUID"},
		"a limit of a fraction": {2, quota.AuditUsageAdjusted, "{}", `{"remaining_units": 1.5}`, "whole number"},
	} {
		document := func(text string) []byte {
			if text == "" {
				return nil
			}
			return []byte(text)
		}
		_, _, err := quota.DecodeAudit(tc.version, tc.action, document(tc.before), document(tc.after))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error about %s", name, err, tc.want)
		}
	}
	row := quota.AuditRow{Action: quota.AuditPlanCreated, Object: "pro", After: quota.AuditGrant{}}
	if _, _, err := row.Encode(); err == nil ||
		!strings.Contains(err.Error(), "quota.AuditGrant must be quota.AuditPlan") {
		t.Errorf("a plan's row that tells a grant: %v", err)
	}
}

// The account of a team is told as other ids are. Rows of older releases have the list of its bytes.
func TestAuditOfTheAccountOfATeam(t *testing.T) {
	t.Parallel()
	const text, list = `"00010203-0405-0607-0809-0a0b0c0d0eff"`, "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,255]"
	for account, want := range map[string]string{
		text: "", list: "", "[1,2]": "no 16 bytes", strings.Replace(list, "255", "256", 1): "no 16 bytes",
		`"0001"`: "UUID", "7": "cannot unmarshal number", "[]": "no 16 bytes",
	} {
		_, after, err := quota.DecodeAudit(quota.AuditVersion, quota.AuditTeamCreated, nil,
			[]byte(`{"account":`+account+`}`))
		if want == "" && err == nil {
			var written []byte
			written, err = json.Marshal(after.(quota.AuditTeam).Account)
			if string(written) != text {
				t.Errorf("%s is written as %s", account, written)
			}
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", account, err, want)
		}
	}
	got, err := quota.DiffAudit([]byte(`{"account":`+text+`}`), []byte(`{"account":`+list+`}`))
	if err != nil || len(got) > 0 {
		t.Errorf("told in both forms: %v, %v", got, err)
	}
	got, err = quota.DiffAudit([]byte(`{"account":`+text+`}`), []byte(`{"account":`+list[:len(list)-2]+`4]}`))
	if err != nil || len(got) != 1 {
		t.Errorf("another one: %v, %v", got, err)
	}
}

func TestDiffAudit(t *testing.T) {
	t.Parallel()
	got, err := quota.DiffAudit(
		[]byte(`{"a": 1, "at": "2026-03-10T12:00:00.50Z", "b": [1, 2], "c": {"x": 1, "y": 2}, "old": 1}`),
		[]byte(`{"a": 2, "at": "2026-03-10T12:00:00.5Z", "b": [1,2], "c": {"y": 2, "x": 1}, "new": 1}`),
	)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]quota.AuditDifference{{Field: "a", Want: "1", Got: "2"}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestCallerActor(t *testing.T) {
	t.Parallel()
	for name, person := range map[string]bool{
		"system:serviceaccount:jobs:backend": false, "system:admin": false, "jane.doe@example.com": true,
		"system": true, "": true,
	} {
		if got := quota.CallerActor(name); got.Person != person || got.Name != name {
			t.Errorf("%q: %+v, want person %t", name, got, person)
		}
	}
}

// TestAuditPage holds docs/audit.md against the actions and the fields that there are.
func TestAuditPage(t *testing.T) {
	t.Parallel()
	const page = "../../docs/audit.md"
	var actions []string
	for _, row := range doctable.Read(t, page, "action", "object", "before", "after") {
		action := quota.AuditAction(strings.Trim(row.Cells["action"], "`"))
		actions = append(actions, string(action))
		if got := action.Kind(); got != row.Cells["object"] {
			t.Errorf("line %d: the object of %s is %q", row.Line, action, got)
		}
		if _, fits := rowOf(action, auditNamed[row.Cells["before"]], auditNamed[row.Cells["after"]]); !fits {
			t.Errorf("line %d: this is not what %s tells", row.Line, action)
		}
	}
	slices.Sort(actions)
	var want []string
	for _, action := range quota.AuditActions() {
		want = append(want, string(action))
	}
	if diff := cmp.Diff(want, actions); diff != "" {
		t.Errorf("the actions (-want +documented):\n%s", diff)
	}

	documented := map[string][]string{}
	for _, row := range doctable.Read(t, page, "field", "meaning") {
		for field := range strings.SplitSeq(row.Cells["field"], ", ") {
			documented[row.Heading] = append(documented[row.Heading], strings.Trim(field, "`"))
		}
	}
	fields := map[string][]string{}
	for name, state := range auditNamed {
		if state == nil {
			continue
		}
		for field := range reflect.TypeOf(state).Fields() {
			tag, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			fields[name] = append(fields[name], tag)
		}
	}
	byName := cmpopts.SortSlices(strings.Compare)
	if diff := cmp.Diff(fields, documented, byName); diff != "" {
		t.Errorf("the fields (-want +documented):\n%s", diff)
	}
}

// auditNamed are the structs by the names that the page has for them.
var auditNamed = map[string]quota.AuditState{
	"": nil, "plan": quota.AuditPlan{}, "settings": quota.AuditSettings{}, "grant": quota.AuditGrant{},
	"period": quota.AuditPeriod{}, "balance": quota.AuditBalance{}, "ticket": quota.AuditTicket{},
	"job": quota.AuditJob{}, "team": quota.AuditTeam{}, "portal": quota.AuditPortal{},
	"endpoint": quota.AuditEndpoint{}, "preferences": quota.AuditPreferences{}, "release": quota.AuditRelease{},
	"delivery": quota.AuditDelivery{},
}
