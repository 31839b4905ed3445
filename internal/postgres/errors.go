// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// conflicts are the constraints by which a claim collides with an older one, and what that means.
var conflicts = map[string]error{
	"user_plan_limits_default_key": quota.Conflict("", "another plan is the default already"),
	"usage_quotas_quota_uid_key":   quota.Conflict("", "the UserQuota owns another account already"),
	"clusters_name_key":            quota.Conflict("", "another cluster has the name already"),
	"users_user_id_key":            ledger.ErrRegistered,
	// An earlier try of the same call, whose commit was still under way when this one looked.
	"users_pkey":      ledger.ErrRegistered,
	"event_keys_pkey": fmt.Errorf("%w: the event was recorded for another user", ledger.ErrKeyReused),
}

// MapError says in ledger's errors what the database answered. It is the only place that knows SQLSTATEs; the server's
// own error stays in the chain.
func MapError(err error) error {
	if err == nil {
		return nil
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return mapServerError(err, pgErr)
	}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return ledger.ErrNotFound // that it was rows that were not found is nobody's business
	case isConnectionError(err):
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, err)
	}
	return err
}

// What an error of the server means follows from its class, the first two characters of its code. The exceptions are
// named. The classes are those of PostgreSQL's manual, appendix A.
func mapServerError(err error, pgErr *pgconn.PgError) error {
	if conflict, ok := conflicts[pgErr.ConstraintName]; ok && pgErr.Code == "23505" {
		// Also a data error, so that a batch finds the call that it belongs to.
		return fmt.Errorf("%w (%w: %w)", conflict, ledger.ErrData, err)
	}
	switch code := pgErr.Code; code {
	case lockNotAvailable, queryCanceled, "25P03", "25P04":
		// It took longer than it may: a lock, a statement, a transaction whose client said nothing. None comes after
		// the commit.
		return fmt.Errorf("%w: %w", ledger.ErrRetry, err)
	case "26000", "42P05":
		// The server does not know the statement, or knows it already: it is not the one that prepared it.
		return fmt.Errorf("%w, and it does not support prepared statements; leave %s out of the database URL: %w",
			ErrPooled, execModeOption, err)
	}
	switch class(pgErr.Code) {
	case "22", "23", "54":
		return fmt.Errorf("%w: %w", ledger.ErrData, err)
	case "40":
		return fmt.Errorf("%w: %w", ledger.ErrRetry, err)
	case "XX":
		// A damaged page is one account's; the others go on without it.
		return fmt.Errorf("%w: %w: %w: %w", ledger.ErrUnavailable, ledger.ErrServer, ledger.ErrData, err)
	}
	switch {
	case isShutdown(pgErr.Code):
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, err)
	case isServerState(pgErr.Code), isOtherDatabase(pgErr.Code):
		return fmt.Errorf("%w: %w: %w", ledger.ErrUnavailable, ledger.ErrServer, err)
	}
	return err
}

const (
	tooManyConnections = "53300"
	lockNotAvailable   = "55P03"
	queryCanceled      = "57014"
)

func class(code string) string { return code[:min(2, len(code))] }

// isShutdown tells the codes with which a server takes leave, or is not ready.
func isShutdown(code string) bool {
	return strings.HasPrefix(code, "57P0") || class(code) == "08" || code == tooManyConnections
}

// isServerState tells the codes of a server that is there and cannot work, whoever asks for whatever: it lacks
// resources (53: disk, memory, locks), is in no state to (55, 57), has trouble with its system (58) or its
// configuration (F0).
func isServerState(code string) bool {
	switch class(code) {
	case "53", "55", "57", "58", "F0":
		return code != lockNotAvailable && code != queryCanceled
	}
	return false
}

// isOtherDatabase tells the codes that come from a server, a database or a schema that is not the one that we need: it
// is read-only (25006, and 0A from a standby), lets us not in (28) or not at its tables (42501), or has no such
// database (3D), schema (3F), table, column or function (42).
func isOtherDatabase(code string) bool {
	switch code {
	case "25006", "42501", "42P01", "42703", "42883":
		return true
	}
	return slices.Contains([]string{"0A", "28", "3D", "3F"}, class(code))
}

func isConnectionError(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	return pgconn.SafeToRetry(err) || pgconn.Timeout(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// MapCommitError does the same for the round trip that ends with the commit: where the connection was lost, or the
// server took leave, nobody knows whether it happened.
func MapCommitError(err error) error {
	mapped := MapError(err)
	if errors.Is(mapped, ledger.ErrUnavailable) && !isAborted(err) {
		return fmt.Errorf("%w: %w", ledger.ErrUnknownOutcome, err)
	}
	return mapped
}

// isAborted reports whether the server says that the transaction did not happen: it skips what follows an ERROR, the
// COMMIT among it, and lives on. It does not after FATAL and PANIC; class 08 is what poolers say of a server that they
// have lost.
func isAborted(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.SeverityUnlocalized == "ERROR" && class(pgErr.Code) != "08"
}
