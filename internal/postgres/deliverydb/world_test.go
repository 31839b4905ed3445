// SPDX-License-Identifier: Apache-2.0

package deliverydb_test

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/delivery"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/deliverydb"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// patience bounds how long is waited for anything.
const patience = 2 * time.Minute

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// world is a ledger whose users can be told of, and a clock that is the test's.
type world struct {
	*delivery.Service

	t      *testing.T
	dsn    string
	ledger *ledgerdb.Store
	store  *deliverydb.Store
	meter  *metering.Service

	mu sync.Mutex
	// now is what the clock says, which stands still unless the test advances it.
	now time.Time
	// refused are the addresses that something wanted to call and no test may.
	refused []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dsn: ledgertest.New(t), now: time.Now()}
	var err error
	w.ledger, err = ledgerdb.Open(t.Context(), w.dsn, postgres.Options{AllowUnsafe: true, Now: func() time.Time {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.now
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.ledger.Close)
	w.meter = metering.New(ledger.New(w.ledger, ledger.Options{}), w.ledger, nil, metering.Options{AutoRegister: true})
	plan := plans.Free()
	plan.AlertThresholds = []int32{80, 100}
	if _, err := w.meter.ApplyPlan(t.Context(), plan, "test"); err != nil {
		t.Fatal(err)
	}
	w.store, w.Service = w.open()
	return w
}

// open returns what another process has.
func (w *world) open() (*deliverydb.Store, *delivery.Service) {
	roots := x509.NewCertPool()
	roots.AddCert(certificate.Certificate())
	store := deliverydb.New(w.ledger.Store)
	return store, delivery.New(store, delivery.Options{
		Log: func(err error, message string) { w.t.Errorf("%s: %v", message, err) },
		Sender: delivery.NewSender(delivery.SenderOptions{RootCAs: roots, Timeout: 5 * time.Second,
			Control: func(address string) error {
				if at, err := netip.ParseAddrPort(address); err == nil && at.Addr().IsLoopback() {
					return nil
				}
				w.mu.Lock()
				defer w.mu.Unlock()
				w.refused = append(w.refused, address)
				return errors.New("no test may call this")
			}}),
	})
}

// certificate is what all receivers of httptest have.
var certificate = httptest.NewTLSServer(http.NotFoundHandler())

// run works on deliveries until the test ends, or the function that it returns is called.
func (w *world) run() (stop func()) {
	w.t.Helper()
	store, service := w.open()
	queue, err := store.OpenQueue(w.t.Context(), w.dsn, 8, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { service.Relay(ctx) })
	running.Go(func() {
		if err := queue.Run(ctx, service.Attempt); err != nil {
			w.t.Error(err)
		}
	})
	w.ledger.OnAlert(service.Wake)
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); running.Wait() }) }
	w.t.Cleanup(stop)
	return stop
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// charge has a user reach thresholds: 24 of 30 credits raise one alert, 30 another.
func (w *world) charge(user string, minutes int) {
	w.t.Helper()
	_, err := w.meter.Record(w.t.Context(), metering.RecordRequest{
		UserID: user, Key: fmt.Sprint(user, minutes, time.Now().UnixNano()), BodyHash: []byte("x"), RecordedBy: "test",
		Use: quota.Use{Type: quota.UsageTranscription, Audio: time.Duration(minutes) * time.Minute},
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) declare(name, url string, change ...func(*delivery.Endpoint)) delivery.Status {
	w.t.Helper()
	e := &delivery.Endpoint{Name: name, URL: url, Signing: delivery.Ed25519, AllowedCIDRs: loopback,
		Audience: delivery.ForOperators,
		Cluster:  quota.ClusterUID{1}}
	for _, f := range change {
		f(e)
	}
	status, err := w.Declare(w.t.Context(), e, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return status
}

// eventually waits until a check holds.
func (w *world) eventually(check func() error) {
	w.t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	w.t.Fatal(err)
}

func (w *world) deliveries(f delivery.Filter) []delivery.Delivery {
	w.t.Helper()
	page, err := w.Deliveries(w.t.Context(), f, delivery.ID{}, delivery.MaxPage)
	if err != nil {
		w.t.Fatal(err)
	}
	return page.Deliveries
}

// audited says that there are so many rows of an action, all with these states, and none that names anybody.
func (w *world) audited(action string, n int, before, after string) {
	w.t.Helper()
	rows, err := w.ledger.Pool().Query(w.t.Context(), `SELECT actor, coalesce(before::text, ''),
		coalesce(after::text, ''), l::text FROM audit_log AS l WHERE action = $1`, action)
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	for ; rows.Next(); n-- {
		var actor, was, is, all string
		if err := rows.Scan(&actor, &was, &is, &all); err != nil {
			w.t.Fatal(err)
		}
		if was != before || is != after || actor != "usage-operator" && !strings.HasPrefix(actor, "person:") {
			w.t.Errorf("%s by %s: %s, %s, want %s, %s", action, actor, was, is, before, after)
		}
		for _, name := range []string{"alice", "secret", "oda"} {
			if strings.Contains(all, name) {
				w.t.Errorf("%s has %q: %s", action, name, all)
			}
		}
	}
	if err := rows.Err(); err != nil || n != 0 {
		w.t.Errorf("%s: %d rows are missing, %v", action, n, err)
	}
}

// got is a request that a receiver has had.
type got struct {
	id, subject, kind string
	signatures        []string
	signed            []byte
}

// verifiedBy reports whether one of the signatures is by a public key.
func (g *got) verifiedBy(key ed25519.PublicKey) bool {
	for _, s := range g.signatures {
		encoded, ok := strings.CutPrefix(s, "v1a,")
		signature, err := base64.StdEncoding.DecodeString(encoded)
		if ok && err == nil && ed25519.Verify(key, g.signed, signature) {
			return true
		}
	}
	return false
}

// receiver is a real HTTPS server on loopback that answers as it is told to.
type receiver struct {
	*httptest.Server

	mu     sync.Mutex
	answer func(n int, w http.ResponseWriter, r *http.Request)
	got    []got
}

func newReceiver(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *receiver {
	t.Helper()
	rc := &receiver{answer: answer}
	rc.Server = httptest.NewTLSServer(http.HandlerFunc(rc.serve))
	t.Cleanup(rc.Close)
	return rc
}

func (rc *receiver) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var event struct {
		ID      string `json:"id"`
		Subject string `json:"subject"`
		Data    struct {
			Kind string `json:"kind"`
		} `json:"data"`
	}
	if err == nil {
		err = json.Unmarshal(body, &event)
	}
	if err != nil || event.ID != r.Header.Get("Webhook-Id") {
		http.Error(w, "not a CloudEvent with the webhook's id", http.StatusBadRequest)
		return
	}
	g := got{id: event.ID, subject: event.Subject, kind: event.Data.Kind,
		signatures: strings.Fields(r.Header.Get("Webhook-Signature")),
		signed:     []byte(event.ID + "." + r.Header.Get("Webhook-Timestamp") + "." + string(body))}
	rc.mu.Lock()
	rc.got = append(rc.got, g)
	n, answer := len(rc.got), rc.answer
	rc.mu.Unlock()
	if answer != nil {
		answer(n, w, r)
	}
}

func (rc *receiver) all() []got {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	return append([]got(nil), rc.got...)
}

func (rc *receiver) answers(answer func(n int, w http.ResponseWriter, r *http.Request)) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	rc.answer = answer
}

func status(code int) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}
