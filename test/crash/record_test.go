// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestCompareUses(t *testing.T) {
	recorded := func(reversed, reversing bool) *use {
		return &use{user: "alice", key: "k", credits: 60, id: someID, reversed: reversed, reversing: reversing}
	}
	charge := &event{ID: someID, User: "alice", Kind: "charge", Credits: 60}
	reversal := &event{ID: otherID, User: "alice", Kind: "reversal", Reverses: someID, Credits: 60}
	for name, tc := range map[string]struct {
		use              *use
		events           []*event
		want             string
		lost, violations int
	}{
		"recorded": {use: recorded(false, false), events: []*event{charge}},
		"lost":     {use: recorded(false, false), want: "not in the database", lost: 1},
		"another amount": {use: recorded(false, false),
			events: []*event{{ID: someID, User: "alice", Kind: "charge", Credits: 61}}, want: "with 61", violations: 1},
		"twice": {use: recorded(false, false), events: []*event{charge,
			{ID: otherID, User: "alice", Kind: "charge", Credits: 60}}, want: "nobody asked for it", violations: 1},
		"reversed": {use: recorded(true, true), events: []*event{charge, reversal}},
		"reversal lost": {use: recorded(true, true), events: []*event{charge},
			want: "its reversal was acknowledged", lost: 1},
		"reversed twice": {use: recorded(true, true), events: []*event{charge, reversal, reversal},
			want: "reversed 2 times", violations: 1},
		"reversed unasked": {use: recorded(false, false), events: []*event{charge, reversal},
			want: "asked for: false", violations: 1},
		"reversal unanswered": {use: recorded(false, true), events: []*event{charge, reversal}},
		"reversal of a strange": {use: recorded(false, false), events: []*event{charge,
			{ID: otherID, User: "bob", Kind: "reversal", Reverses: otherID}}, want: "nobody asked for it",
			violations: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var v verdict
			compareUses([]*use{tc.use}, tc.events, &v)
			v.check(t, tc.want, tc.lost, tc.violations)
		})
	}
}
