// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
)

const (
	// deliveryPatience is above what it takes until another process takes over the attempts of one that was killed.
	deliveryPatience = 5 * time.Minute
	// refuseEvery is how many requests one is refused of.
	refuseEvery = 7
)

// receiver is a webhook that all alerts are sent to. It refuses some, which are to come again under the same id.
type receiver struct {
	*httptest.Server

	mu       sync.Mutex
	requests int
	// taken counts how often each id was taken, and refused how often it was not.
	taken, refused map[string]int
}

func newReceiver() *receiver {
	r := &receiver{taken: map[string]int{}, refused: map[string]int{}}
	r.Server = httptest.NewServer(r)
	return r
}

// ServeHTTP takes a delivery or refuses it.
func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	_, _ = io.Copy(io.Discard, q.Body)
	id := q.Header.Get("Webhook-Id")
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.requests++; r.requests%refuseEvery == 0 {
		r.refused[id]++
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	r.taken[id]++
}

// object is what has alerts sent to the receiver.
func (r *receiver) object() string {
	return fmt.Sprintf("---\napiVersion: %s\nkind: NotificationEndpoint\nmetadata: {name: crash}\n"+
		"spec: {url: %q, allowedCIDRs: [127.0.0.1/32]}\n", v1alpha1.GroupVersion, r.URL)
}

// compareDeliveries waits until nothing is to be sent any more, and holds the alerts against what the receiver took.
func (s *stack) compareDeliveries(ctx context.Context, conn *pgx.Conn, v *verdict) (alerts int, err error) {
	s.report.progressf("waiting for the last alerts to be delivered")
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(deliveryPatience); ; {
		var left int
		if err := conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM usage_alerts WHERE NOT dispatched) +
			(SELECT count(*) FROM deliveries WHERE state = 'waiting')`).Scan(&left); err != nil {
			return 0, err
		}
		if left == 0 {
			break
		}
		if time.Now().After(end) {
			v.losef("%d alerts were not delivered within %s", left, deliveryPatience)
			break
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-tick.C:
		}
	}
	rows, err := conn.Query(ctx, `SELECT id::text FROM usage_alerts
		WHERE raised_at > (SELECT created_at FROM notification_endpoints WHERE name = 'crash')`)
	if err != nil {
		return 0, err
	}
	raised, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, err
	}
	known := make(map[string]bool, len(raised))
	s.receiver.mu.Lock()
	defer s.receiver.mu.Unlock()
	for _, id := range raised {
		known[id] = true
		if s.receiver.taken[id] == 0 {
			v.losef("alert %s never came to the receiver", id)
		}
	}
	for id := range s.receiver.taken {
		if !known[id] {
			v.violatef("the receiver got alert %q, which there is not", id)
		}
	}
	return len(raised), nil
}
