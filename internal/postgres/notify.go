// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	channel = "usage_changes"
	// PostgreSQL refuses payloads of 8000 bytes and more.
	maxPayload   = 7900
	closeTimeout = 5 * time.Second
	// listenPatience is how long silence is taken for having nothing to say.
	listenPatience = 30 * time.Second
)

// change is how a notification carries a ledger.Change.
type change struct {
	ID        pgtype.UUID `json:"id"`
	Namespace string      `json:"ns,omitempty"`
	Name      string      `json:"name,omitempty"`
	Cluster   pgtype.UUID `json:"cluster,omitzero"`
	State     quota.State `json:"state"`
}

// Notify implements ledger.Notifier. It stands outside the batches' transactions: commits with a NOTIFY in them are
// serialised by the server.
func (d *DB) Notify(ctx context.Context, changes []ledger.Change) error {
	payloads, err := payloadsOf(changes)
	if err != nil {
		return err
	}
	var q pgx.Batch
	for _, p := range payloads {
		q.Queue("SELECT pg_notify($1, $2)", channel, p)
	}
	return MapError(d.pool.SendBatch(ctx, &q).Close())
}

// payloadsOf packs changes into as few JSON arrays as fit.
func payloadsOf(changes []ledger.Change) ([]string, error) {
	var out []string
	var chunk []byte
	for _, c := range changes {
		b, err := json.Marshal(change{
			ID: pgtype.UUID{Bytes: c.ID, Valid: true}, Namespace: c.Namespace, Name: c.Name, State: c.State,
			Cluster: pgtype.UUID{Bytes: c.Cluster, Valid: c.Cluster != quota.ID{}},
		})
		if err != nil {
			return nil, err
		}
		if len(b)+2 > maxPayload {
			return nil, fmt.Errorf("a change of %d bytes does not fit a notification of %d", len(b), maxPayload)
		}
		if len(chunk)+len(b)+2 > maxPayload {
			out, chunk = append(out, string(append(chunk, ']'))), nil
		}
		if chunk == nil {
			chunk = []byte{'['}
		} else {
			chunk = append(chunk, ',')
		}
		chunk = append(chunk, b...)
	}
	if chunk != nil {
		out = append(out, string(append(chunk, ']')))
	}
	return out, nil
}

// Listen implements ledger.Notifier, on a connection of its own. What is sent before it listens is not seen: the zero
// Change tells when it does.
func (d *DB) Listen(ctx context.Context, each func(ledger.Change)) (err error) {
	conn, err := pgx.ConnectConfig(ctx, d.listen.Copy())
	if err != nil {
		return MapError(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		err = errors.Join(err, conn.Close(ctx))
	}()
	pooled, err := isPooled(ctx, conn)
	if err != nil {
		return MapError(err)
	}
	if pooled {
		return fmt.Errorf("LISTEN: %w: set --direct-database-url", ErrPooled)
	}
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return MapError(err)
	}
	// Only from here on nothing is missed: when the connection before was lost the database may just have been about to
	// be replaced, and who looked then has seen the old one.
	each(ledger.Change{})
	for {
		n, err := next(ctx, conn)
		if err != nil {
			return MapError(err)
		}
		var changes []change
		if json.Unmarshal([]byte(n.Payload), &changes) != nil {
			continue // not ours, or of a release that says it differently: the poll finds what it meant
		}
		for _, c := range changes {
			each(ledger.Change{
				ID: c.ID.Bytes, Namespace: c.Namespace, Name: c.Name, Cluster: c.Cluster.Bytes, State: c.State,
			})
		}
	}
}

// next waits for a notification. Silence is only good while the other end is there: now and then it is asked.
func next(ctx context.Context, conn *pgx.Conn) (*pgconn.Notification, error) {
	for {
		waiting, cancel := context.WithTimeout(ctx, listenPatience)
		n, err := conn.WaitForNotification(waiting)
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(waiting.Err(), context.DeadlineExceeded) || conn.IsClosed() {
			return n, err
		}
		asking, cancel := context.WithTimeout(ctx, closeTimeout)
		err = conn.Ping(asking)
		cancel()
		if err != nil {
			return nil, err
		}
	}
}
