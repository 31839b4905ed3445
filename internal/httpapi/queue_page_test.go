// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/queue"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

const queuePageFile = "../../docs/queue.md"

// documented are the requests of a page with the answers that it shows.
var documented = regexp.MustCompile(
	"```sh\ncurl -sS \"\\$USAGED([^\"]*)\" -H \"Authorization: Bearer \\$(\\w+)\"\n```\n```json\n([^`]*)```")

// TestQueuePage plays what docs/queue.md tells, sends its requests and compares their answers with the ones there.
func TestQueuePage(t *testing.T) {
	t.Parallel()
	var minutes atomic.Int64
	nine := time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)
	now := func() time.Time { return nine.Add(time.Duration(minutes.Load()) * time.Minute) }
	store, err := ledgerdb.Open(t.Context(), ledgertest.New(t), postgres.Options{AllowUnsafe: true, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	signer := access.NewSigner(store)
	service := metering.New(ledger.New(store, ledger.Options{}), store, signer, metering.Options{AutoRegister: true})
	_, err = service.ApplyPlan(t.Context(), plans.Free(func(p *metering.Plan) { p.MaxWait = 6 * time.Hour }), "test")
	if err != nil {
		t.Fatal(err)
	}
	h := New(Options{
		Usage: service, Admissions: service, Tickets: service, Events: service, History: reports.New(store, service),
		Queue: queue.New(store), Leases: signer, Auth: testAuth(), Database: store.Ping,
		Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(), Draining: t.Context(),
	})

	send := func(n int, req metering.AdmitRequest) quota.AdmissionID {
		t.Helper()
		req.UserID, req.RequestedBy, req.FileSize, req.Queue = "alice", "backend", 1<<20, true
		req.ID, req.Lease = quota.AdmissionID{0x0b, 0x0e, 14: byte(n >> 8), 15: byte(n)}, quota.MaxLease
		res, err := service.Admit(t.Context(), req)
		if err != nil || res.Admission == nil {
			t.Fatalf("recording %d: %+v, %v", n, res, err)
		}
		return req.ID
	}
	var recordings []quota.AdmissionID
	for n := range 15 {
		recordings = append(recordings, send(n+1, metering.AdmitRequest{
			Source: quota.SourceAPI, Estimate: quota.Credit, Namespace: "transcripts", Name: "backend",
		}))
	}
	renew := func(waiting []quota.AdmissionID) {
		t.Helper()
		for _, id := range waiting {
			if _, err := service.Heartbeat(t.Context(), quota.AccountID{}, id); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n, took := range []int64{9, 11, 10, 8, 12, 10, 9, 13, 10, 9, 9} {
		minutes.Add(took)
		if _, err := service.Complete(t.Context(), quota.AccountID{}, recordings[n], quota.Credit); err != nil {
			t.Fatal(err)
		}
		renew(recordings[n+1:])
	}
	minutes.Add(4)
	lecture := send(0x1ec, metering.AdmitRequest{
		Source: quota.SourceJob, Estimate: 25 * quota.Credit, Park: true, Namespace: "transcripts", Name: "lecture",
	})
	variables := strings.NewReplacer("$ID", uuid.UUID(recordings[13]).String(), "$LECTURE", uuid.UUID(lecture).String())
	tokens := map[string]string{"TOKEN": "reader", "OPERATOR": "watcher"}

	page, err := os.ReadFile(queuePageFile)
	if err != nil {
		t.Fatal(err)
	}
	found := documented.FindAllStringSubmatch(string(page), -1)
	if want := strings.Count(string(page), "curl -sS"); len(found) != want || want != 4 {
		t.Fatalf("%d requests with answers, %d in all", len(found), want)
	}
	ask := func(m []string) {
		t.Helper()
		w := do(h, request{method: "GET", path: variables.Replace(m[1]), token: "Bearer " + tokens[m[2]]})
		var pretty any
		if w.Code != 200 || json.Unmarshal(w.Body.Bytes(), &pretty) != nil {
			t.Fatalf("%s: got %d: %s", m[1], w.Code, w.Body)
		}
		t.Run(fmt.Sprintf("%s at %s", m[1], now().Format("15:04")), func(t *testing.T) {
			equalJSON(t, w.Body.String(), m[3])
		})
		if t.Failed() {
			t.Logf("the answer was %s", w.Body)
		}
	}
	ask(found[0])
	ask(found[1])
	ask(found[3])
	for minutes.Load() < 6*60+1 {
		renew(recordings[11:])
		minutes.Store(min(minutes.Load()+30, 6*60+1))
	}
	if err := service.Reap(t.Context()); err != nil {
		t.Fatal(err)
	}
	ask(found[2])
}
