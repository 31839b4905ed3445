// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/httpapi"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/telemetry"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgtest"
)

func environment(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		env  map[string]string
		want string
	}{
		"no database":      {want: "set --database-url or the environment variable DATABASE_URL"},
		"from environment": {env: map[string]string{"DATABASE_URL": "postgres://db"}},
		"key alone":        {args: []string{"--database-url=x", "--tls-key-file=k"}, want: "belong together"},
		"no audience":      {args: []string{"--database-url=x", "--audience="}, want: "at least one audience"},
		"tickets":          {args: []string{"--database-url=x", "--offline-tickets=-1"}, want: "between 0 and 100000"},
		"caller's rate": {
			args: []string{"--database-url=x", "--caller-rate=1000"}, want: "must be calls/window, such as 1000/1m",
		},
		"caller's rate of none": {args: []string{"--database-url=x", "--caller-rate=0/1m"},
			want: "--caller-rate: 0 calls must be between 1 and 1000000"},
		"caller's rate in a blink": {args: []string{"--database-url=x", "--caller-rate=1/1ms"},
			want: "--caller-rate: a window of 1ms must be whole seconds"},
		"failures": {args: []string{"--database-url=x", "--address-failures=-1"},
			want: "--address-failures -1: must lie between 0 and 1000000"},
		"connections": {args: []string{"--database-url=x", "--address-connections=-1"}, want: "must be 0 or more"},
		"no streams": {args: []string{"--database-url=x", "--user-streams=0"},
			want: "--user-streams 0: must be 1 or more"},
		"no streams at all": {args: []string{"--database-url=x", "--max-streams=0"},
			want: "--max-streams 0: must be 1 or more"},
		"no time to drain": {args: []string{"--database-url=x", "--drain-timeout=0"},
			want: "--drain-timeout 0s: must be more than 0s"},
		"a delay that is over": {args: []string{"--database-url=x", "--drain-delay=-1s"},
			want: "--drain-delay -1s: must be 0s or more"},
		"origins": {args: []string{"--database-url=x", "--cors-origin=https://app.example.com", "--cors-origin=*"},
			want: `--cors-origin: origin "*": a wildcard`},
		"sessions that nobody has yet": {args: []string{"--database-url=x", "--session-max=200h"},
			want: "--session-max, --session-idle: sessions of 200h0m0s"},
		"upgrade": {args: []string{"--database-url=x", "--upgrade-url=https://app.example.com"},
			want: "--upgrade-url needs --sign-in-issuer"},
		"argument":     {args: []string{"--database-url=x", "serve"}, want: `unexpected argument "serve"`},
		"unknown flag": {args: []string{"--port=1"}, want: "unknown flag: --port"},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := parse(tc.args, environment(tc.env), io.Discard)
			if tc.want == "" && (err != nil || o.databaseURL != "postgres://db" || o.directURL != "postgres://db") {
				t.Errorf("got %+v, %v", o, err)
			}
			if tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("error: got %v, want it to contain %q", err, tc.want)
			}
		})
	}
}

func TestRatesOfFlags(t *testing.T) {
	o, err := parse([]string{"--database-url=x", "--caller-rate=1000/1m30s"}, environment(nil), io.Discard)
	want := httpapi.RateLimits{Caller: quota.RateLimit{Requests: 1000, Window: 90 * time.Second},
		Failures: quota.RateLimit{Requests: 300, Window: time.Minute}, Connections: 4096}
	if err != nil || o.limits != want {
		t.Errorf("got %+v, %v, want %+v", o.limits, err, want)
	}
	o, err = parse([]string{"--database-url=x", "--address-failures=0", "--address-connections=0"}, environment(nil),
		io.Discard)
	if err != nil || o.limits != (httpapi.RateLimits{}) {
		t.Errorf("got %+v, %v, want none", o.limits, err)
	}
}

func kubeconfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	err := clientcmd.WriteToFile(clientcmdapi.Config{
		CurrentContext: "c", Contexts: map[string]*clientcmdapi.Context{"c": {Cluster: "c"}},
		Clusters: map[string]*clientcmdapi.Cluster{"c": {Server: "https://127.0.0.1:1"}},
	}, path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRefusesToStart(t *testing.T) {
	empty := pgtest.New(t, nil)
	for name, tc := range map[string]struct {
		dsn  string
		args []string
		want string
	}{
		"nobody there":         {dsn: "postgres://127.0.0.1:1/usage?connect_timeout=2", want: "open the database"},
		"not a URL":            {dsn: "postgres://%", want: "database URL"},
		"weaker than required": {dsn: with(t, empty, "synchronous_commit", "off"), want: "synchronous_commit"},
		"no schema":            {dsn: empty, args: []string{"--allow-unsafe-database"}, want: "usage-batch migrate"},
		"no such address": {
			dsn: pgtest.New(t, nil), args: []string{"--allow-unsafe-database", "--migrate", "--listen=256.0.0.1:0"},
			want: "--listen 256.0.0.1:0",
		},
		"log level": {dsn: "postgres://db", args: []string{"--log-level=loud"}, want: `log level "loud"`},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"--kubeconfig=" + kubeconfig(t), "--database-url=" + tc.dsn}, tc.args...)
			err := command(t.Context(), args, environment(nil), io.Discard)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error: got %v, want it to contain %q", err, tc.want)
			}
		})
	}
}

// with returns the connection string with a setting of its sessions.
func with(t *testing.T, dsn, setting, value string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(setting, value)
	u.RawQuery = q.Encode()
	return u.String()
}

func TestRefusesWithoutAPIServer(t *testing.T) {
	err := command(t.Context(), []string{"--database-url=postgres://db",
		"--kubeconfig=" + filepath.Join(t.TempDir(), "none")}, environment(nil), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "no API server to check tokens with") {
		t.Errorf("error: got %v", err)
	}
}

// slow is a database whose answer takes until it is told.
type slow struct {
	entered, leave chan struct{}
}

func (s *slow) ping(context.Context) error {
	close(s.entered)
	<-s.leave
	return nil
}

func TestDrain(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	database := &slow{entered: make(chan struct{}), leave: make(chan struct{})}
	ctx, stop := context.WithCancel(t.Context())
	backgroundEnded, ended := make(chan struct{}), make(chan error, 1)
	opts := httpapi.Options{Database: database.ping, Auth: &access.Auth{}, Log: slog.New(slog.DiscardHandler),
		Registry: telemetry.NewRegistry()}
	go func() {
		ended <- run(ctx, options{drainTimeout: time.Minute}, opts.Log, listener, opts,
			func(ctx context.Context) error {
				<-ctx.Done()
				close(backgroundEnded)
				return ctx.Err()
			})
	}()
	answered := make(chan int, 1)
	go func() {
		resp, err := http.Get("http://" + listener.Addr().String() + "/readyz?verbose")
		if err != nil {
			answered <- 0
			return
		}
		_ = resp.Body.Close()
		answered <- resp.StatusCode
	}()
	<-database.entered
	stop()
	// The listener is closed while the request is still under way, and so is the background work that it needs.
	for {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			break
		}
		_ = conn.Close()
	}
	select {
	case <-backgroundEnded:
		t.Error("the background work ended before the requests did")
	default:
	}
	close(database.leave)
	if status := <-answered; status != http.StatusOK {
		t.Errorf("the request that was under way: got status %d", status)
	}
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
	<-backgroundEnded
}

// Streams over HTTP/1 are no requests of the server's any more, and are waited for all the same.
func TestDrainWaitsForStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var streams sync.WaitGroup
		leave := make(chan struct{})
		streams.Go(func() { <-leave })
		log := slog.New(slog.DiscardHandler)
		err := drain(t.Context(), options{drainTimeout: time.Minute}, log, &http.Server{}, &streams)
		if err == nil || !strings.Contains(err.Error(), "--drain-timeout 1m0s") {
			t.Errorf("with a stream that does not end: %v", err)
		}
		ended := make(chan error, 1)
		go func() {
			ended <- drain(t.Context(), options{drainTimeout: time.Minute}, log, &http.Server{}, &streams)
		}()
		synctest.Wait()
		select {
		case err := <-ended:
			t.Errorf("before the stream has ended: %v", err)
		default:
		}
		close(leave)
		if err := <-ended; err != nil {
			t.Errorf("with a stream that ends: %v", err)
		}
	})
}

func TestBackgroundFailureEndsTheProcess(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	opts := httpapi.Options{Auth: &access.Auth{}, Log: slog.New(slog.DiscardHandler),
		Registry: telemetry.NewRegistry()}
	err = run(t.Context(), options{drainTimeout: time.Minute}, opts.Log, listener, opts,
		func(context.Context) error { return broken })
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

func TestWrongCertificate(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "tls.crt")
	if err := os.WriteFile(path, []byte("not a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	opts := httpapi.Options{Auth: &access.Auth{}, Log: slog.New(slog.DiscardHandler),
		Registry: telemetry.NewRegistry()}
	err = run(t.Context(), options{tlsCert: path, tlsKey: path}, opts.Log, listener, opts,
		func(context.Context) error { return nil })
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error: got %v, want it to name %s", err, path)
	}
}

func TestServesHTTPS(t *testing.T) {
	borrowed := httptest.NewTLSServer(nil)
	defer borrowed.Close()
	pair := borrowed.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	o := options{tlsCert: filepath.Join(t.TempDir(), "tls.crt"), tlsKey: filepath.Join(t.TempDir(), "tls.key"),
		drainTimeout: time.Minute}
	for path, block := range map[string]*pem.Block{
		o.tlsCert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, o.tlsKey: {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	opts := httpapi.Options{Auth: &access.Auth{}, Log: slog.New(slog.DiscardHandler),
		Registry: telemetry.NewRegistry()}
	go func() {
		ended <- run(ctx, o, opts.Log, listener, opts, func(ctx context.Context) error { <-ctx.Done(); return nil })
	}()
	resp, err := borrowed.Client().Get("https://" + listener.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("got %d, %v", resp.StatusCode, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
}

// What a request may have is bounded, and so is the time that it may take to be sent.
func TestLimitsOfRequests(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	opts := httpapi.Options{Database: func(context.Context) error { return nil }, Auth: &access.Auth{},
		Log: slog.New(slog.DiscardHandler), Registry: telemetry.NewRegistry()}
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, options{drainTimeout: time.Minute}, opts.Log, listener, opts,
			func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	}()
	for name, tc := range map[string]struct{ request, want string }{
		"in order":    {"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200"},
		"a long path": {"GET /" + strings.Repeat("x", 2*maxHeaders) + " HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 431"},
		"a large header": {"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 2*maxHeaders) + "\r\n\r\n",
			"HTTP/1.1 431"},
	} {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.WriteString(conn, tc.request) }() // the service need not read it all
		got := make([]byte, len(tc.want))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != tc.want {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, tc.want)
		}
		_ = conn.Close()
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
