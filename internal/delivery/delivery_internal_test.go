// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	cloudevent "github.com/cloudevents/sdk-go/v2/event"
	"pgregory.net/rapid"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

func TestCheck(t *testing.T) {
	base := func() Endpoint {
		return Endpoint{Name: "ops", URL: "https://hooks.example/usage?x=1", Signing: Ed25519,
			Audience: ForOperators}
	}
	boom, many := []quota.AlertKind{"Boom"}, make([]netip.Prefix, 33)
	for want, change := range map[string]func(*Endpoint){
		"": func(*Endpoint) {},
		`name "Ops" must have 1 to 63 lower case`:      func(e *Endpoint) { e.Name = "Ops" },
		`url "ftp://x" must be a URL such as`:          func(e *Endpoint) { e.URL = "ftp://x" },
		`url "http://x.example" must be https`:         func(e *Endpoint) { e.URL = "http://x.example" },
		`url must not have a user`:                     func(e *Endpoint) { e.URL = "https://a:b@x.example" },
		`must not have a fragment`:                     func(e *Endpoint) { e.URL = "https://x.example/#a" },
		`url port "0" must be between 1 and 65535`:     func(e *Endpoint) { e.URL = "https://x.example:0/" },
		`has 2100 bytes: must have at most 2048`:       func(e *Endpoint) { e.URL = strings.Repeat("x", 2100) },
		`link-local, where clouds have their metadata`: func(e *Endpoint) { e.URL = "https://169.254.169.254/" },
		`loopback`:                                              func(e *Endpoint) { e.URL = "https://[::1]/" },
		`host localhost is this machine`:                        func(e *Endpoint) { e.URL = "https://localhost/" },
		`host "127.1" must be a name`:                           func(e *Endpoint) { e.URL = "https://127.1/" },
		`host "0x7f000001" must be a name`:                      func(e *Endpoint) { e.URL = "https://0x7f000001/" },
		`must be printable ASCII`:                               func(e *Endpoint) { e.URL = "https://hööks.example/" },
		`signing "rsa" must be ed25519 or hmac`:                 func(e *Endpoint) { e.Signing = "rsa" },
		`kinds "Boom" must be one of CreditsPercent, TeamShare`: func(e *Endpoint) { e.Kinds = boom },
		`plans "P" must have`:                                   func(e *Endpoint) { e.Plans = []string{"P"} },
		`teams 101 entries: must be at most 100`:                func(e *Endpoint) { e.Teams = make([]string, 101) },
		`users "a b" must have`:                                 func(e *Endpoint) { e.Users = []string{"a b"} },
		`allowedCIDRs 33 entries: must be at most 32`:           func(e *Endpoint) { e.AllowedCIDRs = many },
	} {
		e := base()
		change(&e)
		err := e.Check()
		if want == "" && err != nil || want != "" && (err == nil ||
			!strings.Contains(strings.ReplaceAll(err.Error(), ": ", " "), strings.ReplaceAll(want, ": ", " "))) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	for text, good := range map[string]bool{"10.0.0.0/8": true, "10.0.0.1/8": false, "::ffff:10.0.0.0/104": false,
		"x": false, "fd00::/8": true, "10.0.0.1": false} {
		if _, err := ParseCIDR(text); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Whatever is taken for a URL is one that leads to a host by HTTP, and to none of our own addresses.
func FuzzURL(f *testing.F) {
	for _, seed := range []string{"https://hooks.example/x", "https://127.0.0.1/", "https://[::ffff:127.0.0.1]:443/",
		"https://0177.0.0.1/", "https://example.com\\@127.0.0.1/", "https://a%2eb/", "http:///x",
		"https://[fe80::1%25en0]/", "https://2130706433/", "https://x.example:99999/", "https://１２７.0.0.1/",
		"HTTPS://X/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := parseURL(text, nil)
		if err != nil {
			return
		}
		again, err := url.Parse(u.String())
		if err != nil || again.Hostname() != u.Hostname() || u.Scheme != "https" || u.User != nil ||
			u.Hostname() == "" {
			t.Errorf("%q: %v, %v", text, u, err)
		}
		if address, err := netip.ParseAddr(u.Hostname()); err == nil {
			if judge(address, "https", nil) != nil {
				t.Errorf("%q leads to %s", text, address)
			}
			return
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u.String(), http.NoBody)
		if err != nil || r.URL.Host != u.Host {
			t.Errorf("%q: cannot be sent to: %v", text, err)
		}
	})
}

// A key that is taken signs, and what it signs can be verified.
func FuzzKey(f *testing.F) {
	seed := make([]byte, 32)
	f.Add("whsk_"+base64.StdEncoding.EncodeToString(seed), false)
	f.Add("whsk_"+base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed(seed)), false)
	f.Add("whsec_"+base64.StdEncoding.EncodeToString(seed), true)
	f.Add("whsec_", true)
	f.Fuzz(func(t *testing.T, text string, secret bool) {
		signing := Ed25519
		if secret {
			signing = HMAC
		}
		key, err := ParseKey("k", text, signing)
		if err != nil {
			return
		}
		header := signed("id", time.Unix(1700000000, 0), []byte("body"), []Key{key, NewKey(Ed25519)})
		first, _, _ := strings.Cut(header.Get(headerSignature), " ")
		version, encoded, _ := strings.Cut(first, ",")
		signature, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || secret != (version == "v1") {
			t.Fatalf("got %s, %v", first, err)
		}
		if !secret && !ed25519.Verify(key.Public(), []byte("id.1700000000.body"), signature) {
			t.Error("cannot be verified")
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"", "120", "-1", "99999999999999999999", "Fri, 14 Mar 2026 12:00:00 GMT", "soon"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if d := retryAfter(text, time.Date(2026, 3, 14, 0, 0, 0, 0, time.UTC)); d < 0 || d > maxRetryAfter {
			t.Errorf("%q: %s", text, d)
		}
	})
}

// What receivers are sent is a CloudEvent to those who read them by the CloudEvents SDK, whatever the alert's names
// are.
func FuzzEvent(f *testing.F) {
	f.Add("alice", "welcome", "USD", int64(24*60000), uint8(1))
	f.Add("a", "\x00\xff", "", int64(-1), uint8(4))
	f.Fuzz(func(t *testing.T, name, subject, currency string, used int64, kind uint8) {
		a := &ledger.Alert{AlertFacts: quota.AlertFacts{
			AlertKey: quota.AlertKey{Kind: Kinds[int(kind)%len(Kinds)], Threshold: 80, Subject: subject},
			Level:    quota.Level{Kind: quota.LevelUser, Name: name}, Used: used, Limit: 30, Currency: currency,
			Until: time.Unix(1800000000, 0).UTC(),
		}, ID: quota.AlertID{1}, RaisedAt: time.Unix(1700000000, 0).UTC()}
		body, err := alertEvent(a)
		if err != nil {
			t.Fatal(err)
		}
		var e cloudevent.Event
		if err := json.Unmarshal(body, &e); err != nil {
			t.Fatal(err)
		}
		if err := e.Validate(); err != nil || e.ID() != a.ID.String() || !json.Valid(e.Data()) {
			t.Errorf("got %s, %v", body, err)
		}
	})
}

func TestWants(t *testing.T) {
	alice := &Pending{Kind: quota.AlertOverdrawn, Plan: "free", User: "alice", Teams: []string{"sports", "newsroom"}}
	for name, tc := range map[string]struct {
		e    Endpoint
		want bool
	}{
		"all":                   {Endpoint{}, true},
		"the kind":              {Endpoint{Kinds: []quota.AlertKind{quota.AlertTeamShare, quota.AlertOverdrawn}}, true},
		"another kind":          {Endpoint{Kinds: []quota.AlertKind{quota.AlertTeamShare}}, false},
		"the plan":              {Endpoint{Plans: []string{"free"}}, true},
		"another plan":          {Endpoint{Plans: []string{"pro"}}, false},
		"the user":              {Endpoint{Users: []string{"alice"}}, true},
		"another user":          {Endpoint{Users: []string{"bob"}}, false},
		"a team above":          {Endpoint{Teams: []string{"newsroom"}}, true},
		"another team":          {Endpoint{Teams: []string{"legal"}}, false},
		"of both":               {Endpoint{Teams: []string{"newsroom"}, Plans: []string{"pro"}}, false},
		"a team's own":          {Endpoint{Team: "newsroom"}, true},
		"another team's own":    {Endpoint{Team: "legal"}, false},
		"its own, another user": {Endpoint{Team: "newsroom", Users: []string{"bob"}}, false},
	} {
		if got := tc.e.Wants(alice); got != tc.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}

func TestJudgeOutcome(t *testing.T) {
	now := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	fresh := &Delivery{ExpiresAt: now.Add(Keep)}
	judge := func(o Outcome, was EndpointState, d *Delivery) Verdict { return o.Judge(&was, d, now) }

	if v := judge(Outcome{Status: 204}, EndpointState{Failures: 5, RetryAt: now}, fresh); v.State != Delivered ||
		!v.Recovered || v.Endpoint.Failures != 0 || !v.Endpoint.RetryAt.IsZero() {
		t.Errorf("delivered: %+v", v)
	}
	if v := judge(Outcome{Status: 302}, EndpointState{}, fresh); v.State != Waiting || v.Endpoint.Failures != 1 ||
		!v.Endpoint.RetryAt.IsZero() || !strings.Contains(v.Text, "redirect") {
		t.Errorf("a redirect: %+v", v)
	}
	if v := judge(Outcome{Status: 500}, EndpointState{Failures: Failing - 1}, fresh); v.Endpoint.RetryAt.Before(now) ||
		v.Endpoint.Room() != 1 || !v.Endpoint.Aside() {
		t.Errorf("it begins to fail: %+v", v)
	}
	v := judge(Outcome{Status: 429, RetryAfter: time.Hour}, EndpointState{}, fresh)
	if v.Next.Before(now.Add(time.Hour)) || v.Endpoint.RetryAt.Before(now.Add(time.Hour)) {
		t.Errorf("Retry-After: %+v", v)
	}
	if v := judge(Outcome{Status: 410}, EndpointState{}, fresh); v.Endpoint.DisabledAt != now || v.State != Waiting {
		t.Errorf("gone: %+v", v)
	}
	late := &Delivery{Attempts: 20, ExpiresAt: now.Add(time.Hour)}
	if v := judge(Outcome{Failure: "no"}, EndpointState{}, late); v.State != Dead {
		t.Errorf("late: %+v", v)
	}
	if v := judge(Outcome{Status: 200, Took: 3 * time.Second}, EndpointState{}, fresh); !v.Endpoint.Aside() {
		t.Errorf("slow: %+v", v)
	}
}

// Retries come later and later, never before a fifth less than their time nor after a fifth more.
func TestBackOff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
		n := rapid.IntRange(0, 100).Draw(t, "attempts")
		o := Outcome{Status: 500}
		v := o.Judge(&EndpointState{Failures: n}, &Delivery{Attempts: n, ExpiresAt: now.Add(1000 * time.Hour)}, now)
		want := min(maxRetry, firstRetry*time.Duration(pow3(min(n, 10))))
		if wait := v.Next.Sub(now); wait < want*4/5-1 || wait > want*6/5+1 {
			t.Fatalf("after %d attempts %s, want about %s", n, wait, want)
		}
		if pause := v.Endpoint.RetryAt.Sub(now); n+1 >= Failing && (pause < firstPause*4/5 || pause > maxPause*6/5+1) {
			t.Fatalf("the endpoint waits for %s", pause)
		}
	})
}

func pow3(n int) int64 {
	p := int64(1)
	for ; n > 0; n-- {
		p *= 3
	}
	return p
}
