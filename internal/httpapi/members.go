// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"encoding/json"
	"strings"
)

const (
	// maxDepth is how deep the values of a body may be nested: far more than any of the contract.
	maxDepth = 32
	// fewMembers is how many names of an object are compared one by one; more go into a map.
	fewMembers = 16
	// freeNames is the member whose own members have any names, so that they differ by case as well.
	freeNames = "metadata"
)

// nesting is an object or an array that the scan is in.
type nesting struct {
	object, free bool
	// first is where the names of the object begin, and seen has them where there are many.
	first int
	seen  map[string]bool
}

// checkMembers refuses a body, which is JSON, that is nested too deep or where an object has a member twice: the
// decoder would take the last one, and whoever looked at it on its way perhaps the first. Names that the decoder does
// not tell apart, because it does not look at their case, are the same.
func checkMembers(data []byte) error {
	var (
		space   [8]nesting
		names   [32][]byte
		stack   = space[:0]
		members = names[:0]
		expect  = false
		last    []byte
	)
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '{', '[':
			if len(stack) == maxDepth {
				return malformed("at byte %d: nested deeper than the limit of %d", i+1, maxDepth)
			}
			expect = data[i] == '{'
			stack = append(stack, nesting{object: expect, free: string(last) == freeNames, first: len(members)})
			last = nil
		case '}', ']':
			top := &stack[len(stack)-1]
			members, stack = members[:top.first], stack[:len(stack)-1]
			expect, last = false, nil
		case ',':
			expect = len(stack) > 0 && stack[len(stack)-1].object
			last = nil
		case '"':
			begin, escaped := i+1, false
			for i++; data[i] != '"'; i++ {
				if data[i] == '\\' {
					escaped = true
					i++
				}
			}
			if !expect {
				continue
			}
			expect, last = false, data[begin:i]
			if escaped {
				var plain string
				if err := json.Unmarshal(data[begin-1:i+1], &plain); err != nil {
					return malformed("at byte %d: %v", begin, err)
				}
				last = []byte(plain)
			}
			top := &stack[len(stack)-1]
			if top.has(members[top.first:], last) {
				return malformed("at byte %d: the member %q is there twice", begin, shortName(last))
			}
			members = append(members, last)
		}
	}
	return nil
}

// has reports whether a name is among those of the object, and keeps it in mind where these are many.
func (n *nesting) has(names [][]byte, name []byte) bool {
	if len(names) < fewMembers {
		for _, other := range names {
			if bytes.Equal(other, name) || (!n.free && bytes.EqualFold(other, name)) {
				return true
			}
		}
		return false
	}
	if n.seen == nil {
		n.seen = make(map[string]bool, 2*fewMembers)
		for _, other := range names {
			n.seen[n.key(other)] = true
		}
	}
	key := n.key(name)
	if n.seen[key] {
		return true
	}
	n.seen[key] = true
	return false
}

// key is the same for names that the decoder does not tell apart.
func (n *nesting) key(name []byte) string {
	if n.free {
		return string(name)
	}
	return strings.ToLower(strings.ToUpper(string(name)))
}

// shortName is a name for a message, whose length the caller must not decide.
func shortName(name []byte) string {
	const most = 64
	return string(name[:min(len(name), most)])
}
