// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"testing"

	"pgregory.net/rapid"
)

// Where something stands in a line is where the fair order comes to it, through two levels of any weights and lengths.
func TestPlaceInLineIsThatOfTheFairOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		root := &Waiting{ID: id(1)}
		var nodes []*Waiting
		left, lines, parents := map[AccountID]int{}, map[AccountID]InLine{}, map[AccountID]*Waiting{}
		number := uint64(10)
		child := func(parent *Waiting, waiting int) *Waiting {
			number++
			w := &Waiting{ID: id(number), Weight: rapid.Int32Range(1, 12).Draw(t, "weight")}
			for range rapid.IntRange(0, 5).Draw(t, "ahead") {
				w.Start = w.Start.after(w.Weight)
			}
			parent.Below = append(parent.Below, w)
			parents[w.ID], left[w.ID] = parent, waiting
			nodes = append(nodes, w)
			return w
		}
		var users []*Waiting
		for range rapid.IntRange(1, 4).Draw(t, "children") {
			team := child(root, 0)
			for range rapid.IntRange(1, 4).Draw(t, "users") {
				n := rapid.IntRange(1, 6).Draw(t, "waiting")
				u := child(team, n)
				u.Heads = []Place{{}}
				left[team.ID] += n
				users = append(users, u)
			}
		}
		for _, w := range nodes {
			lines[w.ID] = InLine{ID: w.ID, Start: w.Start, Weight: w.Weight, Waiting: left[w.ID]}
		}
		user := users[rapid.IntRange(0, len(users)-1).Draw(t, "user")]
		nth := rapid.IntRange(1, left[user.ID]).Draw(t, "nth")
		place := nth
		for w := user; w != root; w = parents[w.ID] {
			var others []InLine
			for _, o := range parents[w.ID].Below {
				if o != w {
					others = append(others, lines[o.ID])
				}
			}
			place += lines[w.ID].Before(place, others)
		}

		served, mine := 0, 0
		for mine < nth {
			path, _ := root.Next()
			path.Admitted()
			last := path[len(path)-1]
			served++
			if left[last.ID]--; left[last.ID] == 0 {
				last.Heads = nil
			}
			if last == user {
				mine++
			}
		}
		if place != served {
			t.Fatalf("the %d. of %s is at place %d, and served as number %d", nth, user.ID, place, served)
		}
	})
}
