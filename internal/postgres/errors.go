// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cantonesescribe/usage-operator/internal/metering"
)

// conflicts are the constraints by which an object's claim collides with an older one.
var conflicts = map[string]string{
	"user_plan_limits_default_key": "another plan is the default already",
	"usage_quotas_quota_uid_key":   "the UserQuota owns another account already",
}

// mapError says in metering's errors what the database answered. It is the only place that knows SQLSTATEs; the server's own
// error stays in the chain.
func mapError(err error) error {
	if err == nil {
		return nil
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return mapServerError(err, pgErr)
	}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%w: %w", metering.ErrNotFound, err)
	case isConnectionError(err):
		return fmt.Errorf("%w: %w", metering.ErrUnavailable, err)
	}
	return err
}

func mapServerError(err error, pgErr *pgconn.PgError) error {
	if what, ok := conflicts[pgErr.ConstraintName]; ok && pgErr.Code == "23505" {
		// Also a data error, so that a batch finds the call that it belongs to.
		return fmt.Errorf("%w: %s (%w: %w)", metering.ErrConflict, what, metering.ErrData, err)
	}
	switch code := pgErr.Code; {
	case strings.HasPrefix(code, "22"), strings.HasPrefix(code, "23"):
		return fmt.Errorf("%w: %w", metering.ErrData, err)
	case code == "40001", code == "40P01", code == "55P03", isOutOfTime(code):
		return fmt.Errorf("%w: %w", metering.ErrRetry, err)
	case code == "26000", code == "42P05":
		// The server does not know the statement, or knows it already: it is not the one that prepared it.
		return fmt.Errorf("%w, and it does not support prepared statements; leave %s out of the database URL: %w", ErrPooled, execModeOption, err)
	case isShutdown(code):
		return fmt.Errorf("%w: %w", metering.ErrUnavailable, err)
	}
	return err
}

// isOutOfTime tells the codes with which the server ends what took longer than it may: a statement (57014), or a transaction
// whose client said nothing for too long or in all (25P03, 25P04). None of them comes after the commit.
func isOutOfTime(code string) bool { return code == "57014" || code == "25P03" || code == "25P04" }

const tooManyConnections = "53300"

// isShutdown tells the codes with which a server takes leave, or is not ready.
func isShutdown(code string) bool {
	return strings.HasPrefix(code, "57P0") || strings.HasPrefix(code, "08") || code == tooManyConnections
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

// mapCommitError does the same for the round trip that ends with the commit: where the connection was lost, or the server
// took leave, nobody knows whether it happened.
func mapCommitError(err error) error {
	mapped := mapError(err)
	if errors.Is(mapped, metering.ErrUnavailable) {
		return fmt.Errorf("%w: %w", metering.ErrUnknownOutcome, err)
	}
	return mapped
}
