// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"encoding/hex"
	"fmt"
)

// UUID identifies one of the things that Of names. It is an array, so that it is a key of maps and costs no allocation,
// and of a type of its own for each of them, so that none stands where another is meant.
type UUID[Of any] [16]byte

type (
	// AccountID is the id of an account.
	AccountID = UUID[Account]
	// AdmissionID is the id of an admission; of a Job's, its UID.
	AdmissionID = UUID[Admission]
	// LotID is the id of a lot.
	LotID = UUID[Lot]
	// EventID is the id of an event.
	EventID = UUID[event]
	// TicketID is the id of an offline ticket.
	TicketID = UUID[ticket]
	// AlertID is the id of an alert.
	AlertID = UUID[RaisedAlert]
	// ObjectUID is the UID of a Kubernetes object.
	ObjectUID = UUID[object]
	// ClusterUID is the UID of a cluster.
	ClusterUID = UUID[cluster]
	// PortalTokenID is the id of a portal token.
	PortalTokenID = UUID[portalToken]
)

// These give types to the ids of what this package has no type for.
type (
	event   struct{}
	ticket  struct{}
	object  struct{}
	cluster struct{}

	portalToken struct{}
)

// uuidLength is that of the text form, and uuidDashes are where it has its dashes.
const uuidLength = 36

var uuidDashes = [4]int{8, 13, 18, 23}

// String returns the text form of RFC 9562: "0198a1b2-0000-7000-8000-000000000001".
func (id UUID[Of]) String() string {
	text := id.text()
	return string(text[:])
}

func (id UUID[Of]) text() (text [uuidLength]byte) {
	at, from := 0, 0
	for _, dash := range uuidDashes {
		to := from + (dash-at)/2
		hex.Encode(text[at:], id[from:to])
		text[dash] = '-'
		at, from = dash+1, to
	}
	hex.Encode(text[at:], id[from:])
	return text
}

// MarshalText returns the text form.
func (id UUID[Of]) MarshalText() ([]byte, error) {
	text := id.text()
	return text[:], nil
}

// UnmarshalText reads the text form, and nothing else: no braces, no form without dashes.
func (id *UUID[Of]) UnmarshalText(text []byte) error {
	var read UUID[Of]
	digits := make([]byte, 0, 2*len(read))
	for i, c := range text {
		if dash := i == uuidDashes[0] || i == uuidDashes[1] || i == uuidDashes[2] || i == uuidDashes[3]; !dash {
			digits = append(digits, c)
		} else if c != '-' {
			return fmt.Errorf("%.40q is no UUID such as %s", text, read)
		}
	}
	if len(text) != uuidLength {
		return fmt.Errorf("%.40q is no UUID such as %s", text, read)
	}
	if _, err := hex.Decode(read[:], digits); err != nil {
		return fmt.Errorf("%.40q is no UUID: %w", text, err)
	}
	*id = read
	return nil
}
