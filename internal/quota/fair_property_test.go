// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// queue drives a tree as a dispatcher does, and counts for every node how often each of its siblings was served since
// its own last turn.
type queue struct {
	root  *Waiting
	nodes []*waiter
	// admitted is the order of users in which work was admitted.
	admitted []AccountID
}

// waiter is a node of the tree below the root, with what the tests know about it.
type waiter struct {
	*Waiting

	parent *Waiting
	// idle says of a user that it has nothing that could run.
	idle bool
	// contends says that it could run, and counting that its wait is held against the bound: since its last turn, or
	// since it came. Then fresh says that it had not used its share ahead.
	contends, counting, fresh bool
	// others are the admissions of its siblings since then.
	others map[*waiter]int64
}

func (w *waiter) user() bool { return len(w.Below) == 0 }

// grow returns a tree in which each node of a level has children of these weights.
func grow(weights [][]int32) *queue {
	q := &queue{root: &Waiting{}}
	above := []*Waiting{q.root}
	for _, level := range weights {
		var here []*Waiting
		for _, parent := range above {
			for _, weight := range level {
				child := &Waiting{ID: id(uint64(len(q.nodes) + 1)), Weight: weight}
				parent.Below = append(parent.Below, child)
				q.nodes = append(q.nodes, &waiter{Waiting: child, parent: parent, idle: true})
				here = append(here, child)
			}
		}
		above = here
	}
	return q
}

// wake gives work to every user.
func (q *queue) wake() *queue {
	for _, n := range q.nodes {
		n.idle = false
	}
	q.settle()
	return q
}

func (q *queue) ready(w *Waiting) bool {
	return !w.Full && (len(w.Heads) > 0 || slices.ContainsFunc(w.Below, q.ready))
}

// settle lets whoever can run now and could not before enter.
func (q *queue) settle() {
	for _, n := range q.nodes {
		if n.Heads = nil; n.user() && !n.idle {
			n.Heads = []Place{{}}
		}
	}
	for _, n := range q.nodes {
		contends := q.ready(n.Waiting)
		if contends && !n.contends {
			was := n.Start
			n.Enter(n.parent.Turn)
			n.fresh, n.counting, n.others = n.Start != was, true, map[*waiter]int64{}
		}
		if n.contends = contends; !contends {
			n.counting = false
		}
	}
}

// admit serves whose turn it is, and returns what the bound says against it.
func (q *queue) admit() error {
	path, _ := q.root.Next()
	if len(path) == 0 {
		return nil
	}
	path.Admitted()
	q.admitted = append(q.admitted, path[len(path)-1].ID)
	for level, parent := range path[:len(path)-1] {
		served := q.of(path[level+1])
		for _, child := range parent.Below {
			n := q.of(child)
			if n != served && n.counting {
				n.others[served]++
				if err := n.waits(served); err != nil {
					return err
				}
			}
		}
		served.fresh, served.others = false, map[*waiter]int64{}
	}
	return nil
}

// waits holds the node's wait against the bound, of which served has just taken one more.
func (w *waiter) waits(served *waiter) error {
	own, its := int64(w.Weight), int64(served.Weight)
	most := (its + own - 1) / own
	if w.fresh {
		most = 1
	}
	if got := w.others[served]; got > most {
		return fmt.Errorf("a node of weight %d (came anew: %t) waits while a sibling of weight %d is served %d times, "+
			"want at most %d", own, w.fresh, its, got, most)
	}
	// Where the weight divides those of the others, the bound is the one that people are told.
	sum, all, divides := own, int64(0), true
	for sibling, n := range w.others {
		sum += int64(sibling.Weight)
		all += n
		divides = divides && int64(sibling.Weight)%own == 0
	}
	if divides && all*own > sum+own {
		return fmt.Errorf("a node of weight %d waits for %d others, and the weights are %d together", own, all, sum)
	}
	return nil
}

func (q *queue) of(w *Waiting) *waiter {
	i := slices.IndexFunc(q.nodes, func(n *waiter) bool { return n.Waiting == w })
	return q.nodes[i]
}

var anyWeight = rapid.OneOf(rapid.Just[int32](1), rapid.Int32Range(1, 12), rapid.Int32Range(1, MaxWeight),
	rapid.SampledFrom([]int32{MaxWeight, MaxWeight - 1, 999_983}))

// Users come and go, are parked, reach their limits and get room again, and so do teams: whoever could run throughout
// waits no longer than the bound says, at every level, and whoever comes has saved up nothing.
func TestFairBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		levels := rapid.IntRange(1, 3).Draw(t, "levels")
		weights := make([][]int32, levels)
		equal := rapid.Bool().Draw(t, "equal")
		for i := range weights {
			weights[i] = rapid.SliceOfN(anyWeight, 1, 9/levels).Draw(t, "weights")
			for j := range weights[i] {
				if equal {
					weights[i][j] = weights[i][0]
				}
			}
		}
		q := grow(weights)
		if rapid.Bool().Draw(t, "all at once") {
			q.wake()
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			n := q.nodes[rapid.IntRange(0, len(q.nodes)-1).Draw(t, "node")]
			switch rapid.IntRange(0, 7).Draw(t, "step") {
			case 0:
				n.idle = !n.idle
			case 1:
				n.Full = !n.Full
			case 2: // everybody but one is at a limit for a while
				for _, other := range q.nodes {
					other.Full = other.parent == n.parent && other != n
				}
			case 3:
				for _, other := range q.nodes {
					other.Full = false
				}
			default:
				if err := q.admit(); err != nil {
					t.Fatal(err)
				}
			}
			q.settle()
		}
	})
}

// The order of the rows that were loaded changes nothing, and neither does loading less of them.
func TestFairOrderFollowsFromState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := [][]int32{rapid.SliceOfN(anyWeight, 1, 4).Draw(t, "teams"),
			rapid.SliceOfN(anyWeight, 1, 4).Draw(t, "users")}
		one, two := grow(weights).wake(), grow(weights).wake()
		for range 60 {
			for _, below := range append([]*Waiting{two.root}, two.root.Below...) {
				below.Below = rapid.Permutation(below.Below).Draw(t, "rows")
			}
			full := rapid.IntRange(0, len(one.nodes)-1).Draw(t, "full")
			for i := range one.nodes {
				one.nodes[i].Full, two.nodes[i].Full = i == full, i == full
			}
			one.settle()
			two.settle()
			a, _ := one.root.Next()
			b, _ := prefix(two.root, 2).Next()
			if len(a) != len(b) || len(a) > 0 && a[len(a)-1].ID != b[len(b)-1].ID {
				t.Fatalf("of all %v is next, of the first two at each level %v", a, b)
			}
			if err := cmp.Or(one.admit(), two.admit()); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(one.admitted, two.admitted) {
			t.Fatalf("replayed, %v became %v", one.admitted, two.admitted)
		}
		for i := range one.nodes {
			if got, want := two.nodes[i].Turn, one.nodes[i].Turn; got != want {
				t.Fatalf("replayed, %v became %v", want, got)
			}
		}
	})
}

// prefix returns the tree with the first few children at each level that are not full.
func prefix(w *Waiting, n int) *Waiting {
	loaded := *w
	loaded.Below = nil
	for _, child := range slices.SortedFunc(slices.Values(w.Below), (*Waiting).Compare) {
		if !child.Full && len(loaded.Below) < n {
			loaded.Below = append(loaded.Below, prefix(child, n))
		}
	}
	return &loaded
}

// A thousand equal users, of one team or of ten, some of whom have been idle: Jain's index of every window of a
// thousand admissions.
func TestFairAmongEquals(t *testing.T) {
	for name, levels := range map[string][][]int32{
		"one level":    {slices.Repeat([]int32{7}, 1000)},
		"two levels":   {slices.Repeat([]int32{3}, 10), slices.Repeat([]int32{1}, 100)},
		"three levels": {slices.Repeat([]int32{999_983}, 10), {1, 1, 1, 1, 1}, slices.Repeat([]int32{5}, 20)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const window = 1000
			q := grow(levels).wake()
			served := map[AccountID]float64{}
			var sum, squares float64
			add := func(who AccountID, n float64) {
				squares += (served[who]+n)*(served[who]+n) - served[who]*served[who]
				sum += n
				served[who] += n
			}
			for i := range 4 * window {
				path, _ := q.root.Next()
				path.Admitted()
				q.admitted = append(q.admitted, path[len(path)-1].ID)
				add(q.admitted[i], 1)
				if i >= window {
					add(q.admitted[i-window], -1)
				}
				if jain := sum * sum / (window * squares); i >= window-1 && jain < 0.99 {
					t.Fatalf("Jain's index of the window up to admission %d is %.4f", i, jain)
				}
			}
		})
	}
}

// Service is as the weights say, at each level, whoever else comes and goes.
func TestFairWeights(t *testing.T) {
	weights := []int32{1, 2, 5, 10}
	for name, levels := range map[string][][]int32{
		"users": {weights}, "users of teams": {weights, weights}, "teams of teams": {weights, weights, weights},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := grow(levels).wake()
			unit := int(math.Pow(18, float64(len(levels))))
			n := unit * max(1, 18*18*18/unit) * 2
			served := map[AccountID]float64{}
			for range n {
				path, _ := q.root.Next()
				path.Admitted()
				for _, node := range path[1:] {
					served[node.ID]++
				}
			}
			for _, node := range q.nodes {
				parent := float64(n)
				if node.parent != q.root {
					parent = served[node.parent.ID]
				}
				want := parent * float64(node.Weight) / 18
				if off := math.Abs(served[node.ID]-want) / want; off > 0.02 {
					t.Errorf("%d of %d: served %.0f times, want %.1f", node.Weight, 18, served[node.ID], want)
				}
			}
		})
	}
}

// Fractions are exact: what follows from any number of admissions is their sum, and order is that of the fractions.
func TestVirtualTimeIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := func(name string) (Virtual, *big.Rat) {
			w := anyWeight.Draw(t, name)
			v, exact := Virtual{}, new(big.Rat)
			for range rapid.IntRange(0, 50).Draw(t, "admissions") {
				v = v.after(w)
				exact.Add(exact, big.NewRat(1<<unitBits, int64(w)))
			}
			if v.Part < 0 || v.Part >= 1<<partBits {
				t.Fatalf("%v has more than one unit in its fraction", v)
			}
			return v, exact
		}
		v, exactV := at("weight")
		w, exactW := at("another")
		if got, want := v.Compare(w), exactV.Cmp(exactW); got != want {
			t.Fatalf("%v and %v compare as %d, want %d", v, w, got, want)
		}
		if !exactV.IsInt() || v.Part == 0 {
			return
		}
		t.Fatalf("%v is %v", v, exactV)
	})
	for _, weight := range []int32{1, 3, 7, 999_983, MaxWeight} {
		var v Virtual
		for range 2 * weight {
			v = v.after(weight)
		}
		if v != (Virtual{Units: 2 << unitBits}) {
			t.Errorf("after twice %d admissions at weight %d it is %v", weight, weight, v)
		}
	}
	// A weight that changes costs less than one admission at the new one, and the end of time is no accident.
	least := int64(1<<unitBits/7 + 1<<unitBits/3)
	if v := (Virtual{}).after(7).after(3); v.Units < least || v.Units > least+1 {
		t.Errorf("a seventh and a third is %v", v)
	}
	last := Virtual{Units: math.MaxInt64 - 1}
	for range 3 {
		if last = last.after(1); last.Units != math.MaxInt64 || last.next().Compare(last) != 0 {
			t.Errorf("beyond the end of time it is %v", last)
		}
	}
}

func TestPlacesOfOneUser(t *testing.T) {
	user := &Waiting{Heads: []Place{{Priority: 1, ArrivedSeq: 3}, {Priority: 5, ArrivedSeq: 9},
		{Priority: 5, ArrivedSeq: 7}, {Priority: -1, ArrivedSeq: 1}}}
	if _, got := user.Next(); got != (Place{Priority: 5, ArrivedSeq: 7}) {
		t.Errorf("%v is next", got)
	}
	user.Full = true
	if path, _ := user.Next(); path != nil {
		t.Errorf("who is full is served: %v", path)
	}
}

// The bound is no looser than what happens: who weighs ten beside a hundred that weigh one waits for each of them,
// where its share alone would be one turn in eleven.
func TestFairBoundIsReached(t *testing.T) {
	q := grow([][]int32{append([]int32{10}, slices.Repeat([]int32{1}, 100)...)}).wake()
	heavy := q.nodes[0].ID
	most, wait := 0, 0
	for range 3 * 110 {
		if err := q.admit(); err != nil {
			t.Fatal(err)
		}
		if wait++; q.admitted[len(q.admitted)-1] == heavy {
			wait = 0
		}
		most = max(most, wait)
	}
	if most != 100 {
		t.Errorf("it waits for %d others, want 100", most)
	}
}
