// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func TestJudge(t *testing.T) {
	allowed := []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("fd00:1::/32")}
	for address, want := range map[string]string{
		"93.184.216.34":            "",
		"2606:2800:21f:cb07::1":    "",
		"::ffff:93.184.216.34":     "",
		"64:ff9b::5db8:d822":       "", // a public address behind NAT64
		"10.20.3.4":                "",
		"::ffff:10.20.3.4":         "",
		"64:ff9b::a14:304":         "",
		"fd00:1::5":                "",
		"10.21.0.1":                "private",
		"127.0.0.1":                "loopback",
		"127.255.1.2":              "loopback",
		"::1":                      "loopback",
		"::ffff:127.0.0.1":         "loopback",
		"64:ff9b::7f00:1":          "loopback",
		"169.254.169.254":          "metadata",
		"::ffff:169.254.169.254":   "metadata",
		"64:ff9b::a9fe:a9fe":       "metadata",
		"fd00:ec2::254":            "metadata",
		"fe80::1":                  "link-local",
		"fe80::1%eth0":             "link-local",
		"172.16.0.1":               "private",
		"172.31.255.255":           "private",
		"172.32.0.1":               "",
		"192.168.1.1":              "private",
		"100.64.0.1":               "carriers",
		"100.100.100.200":          "carriers",
		"0.0.0.0":                  "this network",
		"::":                       "not public",
		"224.0.0.1":                "multicast",
		"ff02::1":                  "multicast",
		"255.255.255.255":          "reserved",
		"198.18.0.1":               "benchmarks",
		"192.0.2.1":                "documentation",
		"2001:db8::1":              "documentation",
		"2002:7f00:1::":            "6to4",
		"2001:0:7f00:1::":          "protocols", // Teredo
		"fc00::1":                  "private",
		"fec0::1":                  "not public",
		"64:ff9b:1::a9fe:a9fe":     "not public",
		"::127.0.0.1":              "not public",
		"::ffff:0:127.0.0.1":       "not public",
		"5f00::1":                  "not public",
		"240.0.0.1":                "reserved",
		"192.88.99.1":              "6to4",
		"2620:4f:8000::1":          "",
		"2a00:1450:4001:80b::200e": "",
	} {
		err := judge(netip.MustParseAddr(address), "https", allowed)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", address, err, want)
		}
	}
	for address, want := range map[string]bool{"93.184.216.34": false, "10.20.3.4": true} {
		if err := judge(netip.MustParseAddr(address), "http", allowed); (err == nil) != want {
			t.Errorf("%s without TLS: %v", address, err)
		}
	}
}

// names answers every question for an A record with the next of some addresses, over and over the last.
func names(t *testing.T, addresses ...string) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	var asked atomic.Int64
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buffer[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Authoritative, m.Additionals = true, true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				i := min(int(asked.Add(1)), len(addresses)) - 1
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
					Body:   &dnsmessage.AResource{A: netip.MustParseAddr(addresses[i]).As4()},
				}}
			}
			if reply, err := m.Pack(); err == nil {
				_, _ = server.WriteTo(reply, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// recorder keeps every address but loopback from being called.
type recorder struct {
	mu   sync.Mutex
	seen []string
}

func (r *recorder) control(address string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, address)
	if at, err := netip.ParseAddrPort(address); err == nil && at.Addr().IsLoopback() {
		return nil
	}
	return errors.New("no test may call this")
}

// receiver is a real HTTPS server on loopback, and a Sender that trusts it.
func receiver(t *testing.T, answer http.HandlerFunc, resolver *net.Resolver) (*httptest.Server, *Sender, *recorder) {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then a server notices that its client has left
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	r := &recorder{}
	return server, NewSender(SenderOptions{RootCAs: roots, Resolver: resolver, Control: r.control,
		Timeout: time.Second}), r
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// What a name means is judged each time it is dialled: one that has led to a public address and then leads to this
// machine is refused, and nothing is called.
func TestRebinding(t *testing.T) {
	var calls atomic.Int64
	server, sender, r := receiver(t, func(http.ResponseWriter, *http.Request) { calls.Add(1) },
		names(t, "93.184.216.34", "127.0.0.1", "169.254.169.254", "10.0.0.1"))
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	e := &Endpoint{URL: "https://example.com:" + port + "/"}
	for n, want := range []string{"no good", "loopback", "metadata", "private"} {
		_, err := sender.post(t.Context(), e, http.Header{}, nil)
		if err == nil || !strings.Contains(describe(err), want) {
			t.Errorf("%d: got %v, want %q", n, err, want)
		}
	}
	if len(r.seen) != 1 || r.seen[0] != "93.184.216.34:"+port || calls.Load() > 0 {
		t.Errorf("dialled %v, called %d times", r.seen, calls.Load())
	}
	// The same name is fine where its addresses are allowed.
	server, sender, r = receiver(t, func(http.ResponseWriter, *http.Request) { calls.Add(1) }, names(t, "127.0.0.1"))
	_, port, _ = net.SplitHostPort(server.Listener.Addr().String())
	e = &Endpoint{URL: "https://example.com:" + port + "/", AllowedCIDRs: loopback}
	got, err := sender.post(t.Context(), e, http.Header{}, nil)
	if err != nil || got.status != 200 || calls.Load() != 1 {
		t.Errorf("got %+v, %v, dialled %v", got, err, r.seen)
	}
}

func TestAnswers(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1") // is not asked
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		status int
		failed string
	}{
		"good": {func(http.ResponseWriter, *http.Request) {}, 200, ""},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusTemporaryRedirect)
		}, 307, ""},
		"gone": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }, 410, ""},
		"an endless answer": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}, 200, ""},
		"no answer": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 0, "in time"},
		"huge headers": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", 1<<20))
		}, 0, "no good"},
	} {
		t.Run(name, func(t *testing.T) {
			server, sender, r := receiver(t, tc.answer, nil)
			e := &Endpoint{URL: server.URL, AllowedCIDRs: loopback}
			got, err := sender.post(t.Context(), e, http.Header{}, []byte("{}"))
			if tc.failed != "" {
				if err == nil || !strings.Contains(describe(err), tc.failed) {
					t.Errorf("got %+v, %v", got, err)
				}
			} else if err != nil || got.status != tc.status {
				t.Errorf("got %+v, %v, want %d", got, err, tc.status)
			}
			if len(r.seen) != 1 {
				t.Errorf("dialled %v", r.seen)
			}
		})
	}
	server, sender, _ := receiver(t, func(http.ResponseWriter, *http.Request) {}, nil)
	stranger := NewSender(SenderOptions{Control: new(recorder).control})
	e := &Endpoint{URL: server.URL, AllowedCIDRs: loopback}
	if _, err := stranger.post(t.Context(), e, http.Header{}, nil); err == nil ||
		!strings.Contains(describe(err), "authority") {
		t.Errorf("a certificate of somebody: %v", err)
	}
	server.Close()
	if _, err := sender.post(t.Context(), e, http.Header{}, nil); err == nil ||
		!strings.Contains(describe(err), "does not take connections") {
		t.Errorf("nobody there: %v", err)
	}
}
