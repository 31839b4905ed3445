// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"bytes"
	"cmp"
	"math"
	"slices"
)

// Who is next is the smallest virtual start at every level of the tree: start-time fair queueing (Goyal, Vin, Cheng:
// "Start-time Fair Queuing", SIGCOMM 1996; the hierarchy is theirs too), with one slot as the size of everything. What
// bounds the wait, per level, between two admissions of a child i that could have run throughout: let them have the
// starts s and s + 1/wi. When i is taken at s, whoever else could run stands at s or later; who stands at s has lost to
// i by its id and would again at s + 1/wi; who comes stands after s. Starts of a sibling j are at least 1/wj apart, and
// each of its admissions before i's next one has its start within (s, s + 1/wi], or within [s, s + 1/wi): no more than
// ceil(wj/wi) fit. So i waits for at most the sum over its siblings of ceil(wj/wi). Where its weight divides theirs,
// among equals above all, that is (sum of weights)/wi - 1; else, for each sibling whose weight it does not divide, less
// than one more. A child of weight 10 beside a hundred of weight 1 can wait for all hundred of them, once in ten turns.
// Whoever comes and has not used its share ahead waits for each sibling once at most. A node's time moves only by what
// is admitted below it, so the bound holds level by level whatever the levels above do.

// Virtual is a point in the virtual time of a node of the tree. An admission moves a child of weight w on by 1/w, as an
// exact fraction: nothing is rounded from one admission to the next, however many there are. The zero value is the
// beginning. Points are ordered by Units, then by Part, as an index over both columns has them.
type Virtual struct {
	// Units are whole ones of 1/2^20 of an admission at weight 1. An account of weight 1 that has a node to itself
	// gets through 2^43 admissions before they are used up, which is 278 years at a thousand a second.
	Units int64
	// Part is the fraction of a unit in 1/2^40, rounded down: less than 2^40. Fractions with denominators up to
	// MaxWeight differ by more than that, so they keep their order, and from the weight follows which one it was.
	Part int64
}

const (
	unitBits = 20
	partBits = 40
)

// Compare returns -1 if v is before w, 1 if it is after it, else 0.
func (v Virtual) Compare(w Virtual) int {
	return cmp.Or(cmp.Compare(v.Units, w.Units), cmp.Compare(v.Part, w.Part))
}

// after returns the point that one admission at a weight leads to. At the end of time it stays there.
func (v Virtual) after(weight int32) Virtual {
	w := min(max(int64(weight), 1), MaxWeight)
	// The numerator over w of the fraction, the next one above it where the weight was another one before.
	n := (v.Part*w+1<<partBits-1)>>partBits + 1<<unitBits
	if v.Units > math.MaxInt64-n/w {
		return Virtual{Units: math.MaxInt64}
	}
	return Virtual{Units: v.Units + n/w, Part: n % w << partBits / w}
}

// next returns the first whole unit after the point.
func (v Virtual) next() Virtual {
	if v.Units == math.MaxInt64 {
		return Virtual{Units: math.MaxInt64}
	}
	return Virtual{Units: v.Units + 1}
}

// Turn is all that the queue's fairness keeps of a node of the tree.
type Turn struct {
	// Start is the node's place among the children of its parent, in the parent's time. It has no meaning for a root.
	Start Virtual
	// Now is the time by which the places of the node's own children are measured. A user has none.
	Now Virtual
}

// Enter takes note that something below the node could run from now on where nothing could before: it was idle, all
// that waited was parked, or the node was at its own limit. It stands right after who was admitted last, so it has
// saved up nothing in the meantime; what it had used ahead of its share it has used. A node that could run anyway must
// not enter again. Whoever gives the node something that could run enters the levels above as well, as far as
// those could not run.
func (t *Turn) Enter(parent Turn) {
	if t.Start.Compare(parent.Now) <= 0 {
		t.Start = parent.Now.next()
	}
}

// Admitted takes note that one slot was given to something below the child, whose weight among the children of t is 1
// to MaxWeight. Whoever books an admission does so for each pair of levels of the chain, in any order. It is right as
// well if others have smaller starts and could not run, or if the child did not wait and never entered.
func (t *Turn) Admitted(child *Turn, weight int32) {
	if child.Start.Compare(t.Now) < 0 {
		child.Enter(*t)
	}
	t.Now = child.Start
	child.Start = child.Start.after(weight)
}

// Place is where a queued admission stands among those of its user.
type Place struct {
	Admission AdmissionID
	Priority  int32
	// ArrivedSeq places its arrival in the user's order of decisions.
	ArrivedSeq int64
}

// Compare returns -1 if p is served before q of the same user, 1 if after it: higher priority first, then who came
// first.
func (p Place) Compare(q Place) int {
	return cmp.Or(cmp.Compare(q.Priority, p.Priority), cmp.Compare(p.ArrivedSeq, q.ArrivedSeq))
}

// Waiting is a node of the tree with what waits below it, as far as somebody has loaded it: of a node's children those
// of the smallest starts (in the order of Compare), and of a user's work the first that could run. What is parked is
// not there. A prefix is enough: if something in it can run, that is next whatever else there is.
type Waiting struct {
	ID AccountID
	Turn

	// Weight among the children of its parent, 1 to MaxWeight.
	Weight int32
	// Full says that a limit of the node itself lets nothing below it run now.
	Full bool
	// Below are a team's children, and Heads a user's work, in any order.
	Below []*Waiting
	Heads []Place
}

// Compare returns -1 if w is served before v of the same parent, 1 if after it: the smaller start first, then the
// smaller id.
func (w *Waiting) Compare(v *Waiting) int {
	return cmp.Or(w.Start.Compare(v.Start), bytes.Compare(w.ID[:], v.ID[:]))
}

// Path leads from the top of what was loaded to the user whose turn it is.
type Path []*Waiting

// Next returns the way to the user whose work runs next, and which of it; an empty one if nothing can run. It looks at
// each node that was loaded at most once, and at nothing below a node that is full.
func (w *Waiting) Next() (Path, Place) {
	return w.next(nil)
}

func (w *Waiting) next(above Path) (Path, Place) {
	if w.Full {
		return nil, Place{}
	}
	here := append(above, w) //nolint:gocritic // the paths of siblings are made one after the other
	if len(w.Heads) > 0 {
		return here, slices.MinFunc(w.Heads, Place.Compare)
	}
	var tried *Waiting
	for {
		// One look is enough unless the first of them is full. Sorting would cost more than all the rest.
		var first *Waiting
		for _, child := range w.Below {
			if (tried == nil || tried.Compare(child) < 0) && (first == nil || child.Compare(first) < 0) {
				first = child
			}
		}
		if first == nil {
			return nil, Place{}
		}
		if path, place := first.next(here); path != nil {
			return path, place
		}
		tried = first
	}
}

// Admitted takes note of an admission at each level of the path, so that the next one after it can be asked for. What
// runs now is no head any more, and which nodes are full is the caller's to say.
func (p Path) Admitted() {
	for i := range p[1:] {
		p[i].Turn.Admitted(&p[i+1].Turn, p[i+1].Weight)
	}
}
