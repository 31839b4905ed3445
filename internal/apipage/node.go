// SPDX-License-Identifier: Apache-2.0

package apipage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// node is a value of the document. Members keep their order, which is the reader's.
type node struct {
	root    *node
	keys    []string
	members map[string]*node
	items   []*node
	// scalar is anything but an object or an array, and text how it is written.
	scalar any
	text   string
}

func parse(document string) (*node, error) {
	var y yaml.Node
	if err := yaml.Unmarshal([]byte(document), &y); err != nil {
		return nil, err
	}
	if len(y.Content) != 1 {
		return nil, fmt.Errorf("the document has %d values, it must have one", len(y.Content))
	}
	root := &node{}
	root.root = root
	return root, root.read(y.Content[0])
}

func (n *node) read(y *yaml.Node) error {
	child := func(y *yaml.Node) (*node, error) {
		c := &node{root: n.root}
		return c, c.read(y)
	}
	switch y.Kind {
	case yaml.MappingNode:
		n.members = make(map[string]*node, len(y.Content)/2)
		for i := 0; i < len(y.Content); i += 2 {
			c, err := child(y.Content[i+1])
			if err != nil {
				return err
			}
			n.keys = append(n.keys, y.Content[i].Value)
			n.members[y.Content[i].Value] = c
		}
	case yaml.SequenceNode:
		n.items = []*node{}
		for _, item := range y.Content {
			c, err := child(item)
			if err != nil {
				return err
			}
			n.items = append(n.items, c)
		}
	case yaml.ScalarNode:
		n.text = y.Value
		return y.Decode(&n.scalar)
	default:
		return fmt.Errorf("line %d: the document must not have aliases", y.Line)
	}
	return nil
}

// at returns what is there, behind references; nil if there is nothing.
func (n *node) at(path ...string) *node {
	n = n.target()
	for _, name := range path {
		if n == nil {
			return nil
		}
		n = n.members[name].target()
	}
	return n
}

// reference is the name of the component that a node stands for.
func (n *node) reference() string {
	if n == nil || n.members["$ref"] == nil {
		return ""
	}
	ref := n.members["$ref"].text
	return ref[strings.LastIndex(ref, "/")+1:]
}

func (n *node) target() *node {
	for n != nil && n.members["$ref"] != nil {
		path, ours := strings.CutPrefix(n.members["$ref"].text, "#/")
		if !ours {
			return nil
		}
		t := n.root
		for name := range strings.SplitSeq(path, "/") {
			if t = t.members[name]; t == nil {
				return nil
			}
		}
		n = t
	}
	return n
}

// string returns a scalar as it is written; "" where there is none.
func (n *node) string() string {
	if n == nil {
		return ""
	}
	return n.text
}

func (n *node) names() []string {
	if n == nil {
		return nil
	}
	return n.keys
}

func (n *node) list() []*node {
	if n == nil {
		return nil
	}
	return n.items
}

// MarshalJSON writes the members in their order.
func (n *node) MarshalJSON() ([]byte, error) {
	switch {
	case n.items != nil:
		return json.Marshal(n.items)
	case n.members == nil:
		return json.Marshal(n.scalar)
	}
	var b bytes.Buffer
	b.WriteByte('{')
	for i, key := range n.keys {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(key)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(n.members[key])
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
