// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net/http"

	"github.com/cantonesescribe/usage-operator/api/client"
)

// Exit codes besides those of the command. Those below 125 are of sysexits.h.
const (
	// exitUnrecorded: the command succeeded, but its charge is not known to be recorded.
	exitUnrecorded = 69
	// exitLater: the command was not run; the same may succeed later.
	exitLater = 75
	// exitRefused: the command was not run, and will not be unless something else changes.
	exitRefused = 77
	// exitOwn: usage-run itself failed, or was called wrongly; the command was not run.
	exitOwn = 125
	// exitNotExecutable and exitNotFound are those of env(1) and shells.
	exitNotExecutable = 126
	exitNotFound      = 127
	// exitSignal is added to the number of the signal that ended the command.
	exitSignal = 128
)

// refusal is a reason why the command does not run, with the exit code that says so.
type refusal struct {
	code int
	err  error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func refused(code int, err error) error { return &refusal{code, err} }

// asRefusal gives an error of a call its exit code.
func asRefusal(err error) error {
	if _, ok := errors.AsType[*refusal](err); ok || err == nil {
		return err
	}
	if _, temporary := client.Temporary(err); temporary {
		return refused(exitLater, err)
	}
	if answer, ok := errors.AsType[*client.Error](err); ok {
		switch answer.Status {
		case http.StatusTooManyRequests:
			return refused(exitLater, err)
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusRequestEntityTooLarge:
			return refused(exitRefused, err)
		}
	}
	return err
}
