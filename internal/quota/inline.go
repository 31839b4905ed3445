// SPDX-License-Identifier: Apache-2.0

package quota

import "bytes"

// InLine is a node among the children of its parent, with how much of what waits below it is served one after the
// other as long as nothing else holds it up.
type InLine struct {
	ID    AccountID
	Start Virtual
	// Weight among the children of its parent, 1 to MaxWeight.
	Weight  int32
	Waiting int
}

// Nth returns the virtual start of the nth (from 1) of what waits below the node.
func (l InLine) Nth(n int) Virtual {
	at := l.Start
	for range n - 1 {
		at = at.after(l.Weight)
	}
	return at
}

// Before returns how many of what waits below the others are served before the nth of the node, if each slot of the
// parent goes to whoever is next. Only who starts no later than that nth has to be among them; the node itself, if it
// is among them, counts for nothing. It takes a step for each that it counts, and for each of the n.
func (l InLine) Before(n int, others []InLine) int {
	last, before := l.Nth(n), 0
	for _, o := range others {
		if o.ID == l.ID {
			continue
		}
		at, first := o.Start, bytes.Compare(o.ID[:], l.ID[:]) < 0
		for range o.Waiting {
			if c := at.Compare(last); c > 0 || c == 0 && !first {
				break
			}
			before++
			at = at.after(o.Weight)
		}
	}
	return before
}
