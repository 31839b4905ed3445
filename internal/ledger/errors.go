// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"fmt"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// The errors of this package, to be tested with errors.Is. Refusals by a limit are not errors but decisions.
var (
	// ErrNotFound is quota.ErrNotFound.
	ErrNotFound = quota.ErrNotFound
	// ErrOverloaded says that too many calls wait already; the same call may succeed a little later.
	ErrOverloaded = errors.New("too many calls are waiting, try again in a second")
	// ErrUnavailable says that the database cannot be reached; the same call may succeed later.
	ErrUnavailable = errors.New("the database cannot be reached")
	// ErrKeyReused says that an idempotency key was used before with another body.
	ErrKeyReused = errors.New("the idempotency key was used before with a different request")
	// ErrInvalid is quota.ErrInvalid.
	ErrInvalid = quota.ErrInvalid
	// ErrNoAccount comes with ErrNotFound where the account of an operation is not there.
	ErrNoAccount = errors.New("account")
	// ErrServer comes with ErrUnavailable where the database was reached and answered that it cannot do its work.
	ErrServer = errors.New("the database server cannot do its work")
	// ErrRegistered says that somebody else has made the account meanwhile.
	ErrRegistered = errors.New("the user has an account already")
	// ErrBusy says that another process holds the account, for whoever does not want to wait for it.
	ErrBusy = errors.New("another process is at work on the account")
	// ErrConflict is quota.ErrConflict.
	ErrConflict = quota.ErrConflict
)

// The errors by which a Store tells the engine what to do with a batch.
var (
	// ErrData: some call of the batch has data that the database refuses; the others are to be run without it.
	ErrData = errors.New("the database refused the data")
	// ErrRetry: the transaction did not happen and is to be run again (serialization failure, deadlock).
	ErrRetry = errors.New("the transaction is to be run again")
	// ErrUnknownOutcome: the connection was lost while the commit was under way.
	ErrUnknownOutcome = errors.New("the outcome of the transaction is not known")
)

// SchemaError says that the database's schema is older than this release, or not there at all: version 0. It is an
// ErrUnavailable: the same call succeeds once the schema has been migrated. A newer schema is no error.
// It is no quota.Error: no caller can do anything about it, an operator can, who needs both numbers apart.
type SchemaError struct{ Has, Needs int64 }

func (e *SchemaError) Error() string {
	return fmt.Sprintf("the database has schema version %d, this needs %d", e.Has, e.Needs)
}

// Is makes errors.Is(err, ErrUnavailable) true.
func (e *SchemaError) Is(target error) bool { return target == ErrUnavailable }

// OwnedError says that a plan, or what is declared about a user, belongs to another cluster. It is an ErrConflict.
type OwnedError struct {
	// Subject is what belongs to it: a plan or a user by name.
	Subject string
	// Cluster is whose it is.
	Cluster quota.ClusterUID
}

func (e *OwnedError) Error() string {
	return fmt.Sprintf("%s belongs to cluster %s", e.Subject, e.Cluster)
}

// Unwrap returns the kind.
func (e *OwnedError) Unwrap() error { return ErrConflict }

// UnreadableError says that something about a user is not known to this release: a newer one wrote it, or somebody
// else. Only that user is affected. No call for the user is answered, because nobody knows what it would do.
// It is no quota.Error: the caller has done nothing wrong. What can be done about it, and by whom, is in Declared.
type UnreadableError struct {
	UserID string
	// What cannot be read, for people.
	What string
	// Declared says that a UserQuota decides it: applying one that can be read repairs it.
	Declared bool
}

func (e *UnreadableError) Error() string {
	text := fmt.Sprintf("user %q cannot be read by this release: %s", e.UserID, e.What)
	if e.Declared {
		text += "; correct the user's UserQuota, or upgrade"
	}
	return text
}
