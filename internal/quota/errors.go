// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"errors"
	"fmt"
)

// The kinds of errors that a caller can do something about, one for each thing to do. Every *Error is of one kind,
// which errors.Is tells.
var (
	// ErrInvalid says that the request itself is wrong, or a name, an amount or a use in it.
	ErrInvalid = errors.New("invalid request")
	// ErrNotFound says that there is no such user, plan, admission or event.
	ErrNotFound = errors.New("not found")
	// ErrConflict says that what is asked for does not fit what is there already.
	ErrConflict = errors.New("conflict")
)

// Error is an error that every face can tell in its own form.
type Error struct {
	Kind error
	// Subject is what the error is about: a field of a request, or an object with its name.
	Subject string
	// Reason is set where one of the Reasons says the same in one word.
	Reason Reason
	// Text is what is wrong with the subject, with the value and the limit where there is one.
	Text string
}

// Error says all of it but the kind, which is for programs.
func (e *Error) Error() string {
	if e.Subject == "" {
		return e.Text
	}
	return e.Subject + ": " + e.Text
}

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

// Invalid returns an ErrInvalid about a field of a request.
func Invalid(field, format string, args ...any) error {
	return &Error{Kind: ErrInvalid, Subject: field, Text: fmt.Sprintf(format, args...)}
}

// NotFound returns an ErrNotFound about an object.
func NotFound(format string, args ...any) error {
	return &Error{Kind: ErrNotFound, Subject: fmt.Sprintf(format, args...), Text: ErrNotFound.Error()}
}

// Conflict returns an ErrConflict about an object.
func Conflict(subject, format string, args ...any) error {
	return &Error{Kind: ErrConflict, Subject: subject, Text: fmt.Sprintf(format, args...)}
}

// Unfit returns the ErrConflict of an operation that an admission's state does not allow.
func Unfit(state State, format string, args ...any) error {
	return Conflict("admission is "+string(state), format, args...)
}

// Unknown returns the ErrNotFound of a user for whom there is no account to decide on: UnknownUser or UnknownPlan.
func Unknown(userID string, reason Reason) error {
	return &Error{Kind: ErrNotFound, Subject: fmt.Sprintf("user %q", userID), Reason: reason,
		Text: Decision{Reason: reason}.Message()}
}

// ReasonOf returns the reason of an error, or none.
func ReasonOf(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return ""
}
