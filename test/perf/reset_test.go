// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgtest"
)

// The statement that a reset is measured against is one of today's schema.
func TestBareResetFitsTheSchema(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.New(t, postgres.Migrate))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	if _, err := conn.Prepare(t.Context(), "bare", bareReset); err != nil {
		t.Fatal(err)
	}
}
