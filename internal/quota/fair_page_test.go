// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/testing/doctable"
)

// The page's cases of the bound: what follows from the weights, and what happens.
func TestBoundPage(t *testing.T) {
	for _, row := range doctable.Read(t, "../../docs/queue.md", "own weight", "siblings") {
		var own, most, reached int
		number(t, row.Cells["own weight"], &own)
		number(t, row.Cells["most turns of others in between"], &most)
		number(t, row.Cells["reached"], &reached)
		weights, bound := []int32{int32(own)}, 0
		for part := range strings.SplitSeq(row.Cells["siblings"], ", ") {
			var n, weight int
			if _, err := fmt.Sscanf(part, "%d of %d", &n, &weight); err != nil {
				t.Fatalf("line %d: %q: %v", row.Line, part, err)
			}
			weights = append(weights, slices.Repeat([]int32{int32(weight)}, n)...)
			bound += n * ((weight + own - 1) / own)
		}
		q := grow([][]int32{weights}).wake()
		longest, wait := 0, 0
		for range 12*len(weights) + 100 {
			path, _ := q.root.Next()
			path.Admitted()
			if wait++; path[1].ID == q.nodes[0].ID {
				wait = 0
			}
			longest = max(longest, wait)
		}
		if bound != most || longest != reached {
			t.Errorf("line %d: the bound is %d and %d are reached, the page says %d and %d",
				row.Line, bound, longest, most, reached)
		}
	}
}

func number(t *testing.T, cell string, n *int) {
	t.Helper()
	if _, err := fmt.Sscan(cell, n); err != nil {
		t.Fatalf("%q: %v", cell, err)
	}
}
