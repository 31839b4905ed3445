// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/advice"
	"github.com/cantonesescribe/usage-operator/internal/clusters"
	"github.com/cantonesescribe/usage-operator/internal/delivery"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/queue"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
	"github.com/cantonesescribe/usage-operator/internal/testing/portaltest"
)

var (
	noon      = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	nextMonth = time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	accountID = quota.ID{1}
	admID     = quota.AdmissionID(uuid.MustParse("0198c5f0-0000-8000-8000-000000000001"))
	admPath   = "/api/v1/admissions/" + admID.String()
)

const (
	goodBody = `{"user_id":"alice","estimated_duration_seconds":165.5,"file_size_bytes":1048576}`
	lease    = "the-lease"
)

// fake answers every call with what the test gave it.
type fake struct {
	err   error
	admit metering.AdmitResult
	check metering.CheckResult
	adm   *ledger.Admission
	usage ledger.Usage
	past  reports.History
	alert ledger.Alert

	totalForetold reports.TotalForecast
	foretold      reports.Forecast

	sent  delivery.Delivery
	place *queue.Place
	queue queue.Page
	plans []*metering.Plan

	stand      map[string]metering.TeamUsage
	teamPeriod reports.TeamPeriod
	teamPast   reports.TeamHistory
	members    reports.Members
	shared     []clusters.Cluster
	changed    []string
	period     *int64
	behind     quota.AccountID

	wait func(ctx context.Context) (*ledger.Admission, error)

	recorded []metering.RecordResult
	failed   []error
	event    *ledger.Event
	uses     []metering.RecordRequest
	undone   metering.ReverseRequest
	adjusted metering.AdjustRequest

	got    metering.AdmitRequest
	maxAge time.Duration
	before int64
	limit  int
	filter queue.Filter
	after  queue.Spot
	actual quota.Credits
	holder quota.AccountID
	// made says that an account was to be made where there is none.
	made bool
}

func (f *fake) Check(
	_ context.Context, _ string, _ quota.Request, maxAge time.Duration,
) (metering.CheckResult, error) {
	f.maxAge = maxAge
	return f.check, f.err
}

func (f *fake) History(_ context.Context, _ string, before int64, limit int) (reports.History, error) {
	f.before, f.limit = before, limit
	return f.past, f.err
}

func (f *fake) PlaceOf(context.Context, *ledger.Admission) (*queue.Place, error) { return f.place, nil }

func (f *fake) List(_ context.Context, filter queue.Filter, after queue.Spot, limit int) (queue.Page, error) {
	f.filter, f.after, f.limit = filter, after, limit
	return f.queue, f.err
}

// RecordAll answers with what the test gave, else that each use is new.
func (f *fake) RecordAll(_ context.Context, reqs []metering.RecordRequest) ([]metering.RecordResult, []error) {
	f.uses = reqs
	results, errs := make([]metering.RecordResult, len(reqs)), make([]error, len(reqs))
	for i := range reqs {
		results[i] = metering.RecordResult{Event: charge(), On: quota.Alone(alice()), Now: noon, Created: true}
		errs[i] = f.err
	}
	copy(results, f.recorded)
	copy(errs, f.failed)
	return results, errs
}

func (f *fake) Event(_ context.Context, id quota.EventID) (*ledger.Event, error) {
	if f.event == nil || f.event.ID != id {
		return nil, fmt.Errorf("event %s: %w", id, ledger.ErrNotFound)
	}
	return f.event, nil
}

func (f *fake) Reverse(_ context.Context, req metering.ReverseRequest) (metering.RecordResult, error) {
	f.undone = req
	return metering.RecordResult{Event: charge(), On: quota.Alone(alice()), Now: noon, Created: true}, f.err
}

func (f *fake) Adjust(_ context.Context, req metering.AdjustRequest) (metering.RecordResult, error) {
	f.adjusted = req
	return metering.RecordResult{Event: charge(), On: quota.Alone(alice()), Now: noon, Created: true}, f.err
}

func (f *fake) Admit(_ context.Context, req metering.AdmitRequest) (metering.AdmitResult, error) {
	f.got = req
	return f.admit, f.err
}

func (f *fake) Heartbeat(_ context.Context, account quota.AccountID, _ quota.AdmissionID) (*ledger.Admission, error) {
	f.holder = account
	return f.adm, f.err
}

func (f *fake) Complete(
	_ context.Context, account quota.AccountID, _ quota.AdmissionID, actual quota.Credits,
) (*ledger.Admission, error) {
	f.holder, f.actual = account, actual
	return f.adm, f.err
}

func (f *fake) Release(_ context.Context, account quota.AccountID, _ quota.AdmissionID) (*ledger.Admission, error) {
	f.holder = account
	return f.adm, f.err
}

func (f *fake) ForceRelease(
	_ context.Context, account quota.AccountID, _ quota.AdmissionID, reason, actor string,
) (*ledger.Admission, error) {
	f.holder = account
	f.changed = append(f.changed, "release by "+actor+": "+reason)
	released := *admitted()
	released.State, released.ReleaseReason = quota.Released, reason
	return &released, f.err
}

func (f *fake) Get(_ context.Context, id quota.AdmissionID) (*ledger.Admission, error) {
	if id != admID {
		return nil, fmt.Errorf("admission %s: %w", id, ledger.ErrNotFound)
	}
	return f.adm, nil
}

func (f *fake) Wait(ctx context.Context, _ quota.AdmissionID, _ time.Time) (*ledger.Admission, error) {
	return f.wait(ctx)
}

func (f *fake) TeamUsage(_ context.Context, names []string) (map[string]metering.TeamUsage, error) {
	all := map[string]metering.TeamUsage{}
	for _, name := range names {
		if u, there := f.stand[name]; there {
			all[name] = u
		}
	}
	return all, f.err
}

func (f *fake) AddMember(_ context.Context, team, userID string, by metering.By) error {
	f.changed = append(f.changed, fmt.Sprintf("add %s to %s by %s: %s", userID, team, by.Actor, by.Reason))
	return f.err
}

func (f *fake) RemoveMember(_ context.Context, team, userID string, by metering.By) error {
	f.changed = append(f.changed, fmt.Sprintf("remove %s from %s by %s: %s", userID, team, by.Actor, by.Reason))
	return f.err
}

func (f *fake) TeamNames(_ context.Context, after string, limit int) ([]string, bool, error) {
	names := slices.Sorted(maps.Keys(f.stand))
	names = slices.DeleteFunc(names, func(name string) bool { return name <= after })
	return names[:min(limit, len(names))], limit < len(names), f.err
}

func (f *fake) TeamPeriod(
	_ context.Context, _ string, period *int64, after quota.AccountID, limit int,
) (reports.TeamPeriod, error) {
	f.period, f.behind, f.limit = period, after, limit
	return f.teamPeriod, f.err
}

func (f *fake) TeamHistory(_ context.Context, _ string, before int64, limit int) (reports.TeamHistory, error) {
	f.before, f.limit = before, limit
	return f.teamPast, f.err
}

func (f *fake) TeamMembers(
	_ context.Context, _ string, after quota.AccountID, limit int,
) (reports.Members, error) {
	f.behind, f.limit = after, limit
	return f.members, f.err
}

func (f *fake) Recent(ctx context.Context, userID string, maxAge time.Duration) (ledger.Usage, error) {
	f.maxAge = maxAge
	return f.Current(ctx, userID)
}

func (f *fake) Period(context.Context, string, *int64) (reports.HistoryPeriod, time.Time, error) {
	return reports.HistoryPeriod{}, time.Time{}, f.err
}

func (f *fake) Forecast(context.Context, string) (reports.Forecast, error) { return f.foretold, f.err }

func (f *fake) Stats(context.Context, string, int) (reports.Stats, error) {
	return reports.Stats{Lasts: time.Hour}, f.err
}

func (f *fake) Simulate(context.Context, *quota.Plan, string, int64) (reports.Simulated, error) {
	return reports.Simulated{Simulation: advice.NewSimulation(freePlan())}, f.err
}

func (f *fake) Advice(context.Context, string, []*quota.Plan) (reports.Advice, error) {
	return reports.Advice{}, f.err
}

func (f *fake) Churn(context.Context, string) (reports.Churn, error) { return reports.Churn{}, f.err }

func (f *fake) PlansAdvice(context.Context) (reports.PlansAdvice, error) {
	return reports.PlansAdvice{}, f.err
}

func (f *fake) Utilisation(context.Context, reports.Span) (reports.Utilisation, error) {
	return reports.Utilisation{}, f.err
}

func (f *fake) Margins(context.Context, reports.By, reports.Span) (reports.Margins, error) {
	return reports.Margins{}, f.err
}

func (f *fake) Spenders(context.Context, reports.SpendersQuery, int) (reports.Spenders, error) {
	return reports.Spenders{}, f.err
}

func (f *fake) SpenderRows(
	context.Context, reports.SpendersQuery,
) (reports.Spenders, iter.Seq2[[]reports.Spender, error], error) {
	return reports.Spenders{}, func(func([]reports.Spender, error) bool) {}, f.err
}

func (f *fake) Cohorts(context.Context, reports.Day, reports.Day) (reports.Cohorts, error) {
	return reports.Cohorts{}, f.err
}

func (f *fake) Work(context.Context, reports.By, reports.Span) (reports.Work, error) {
	return reports.Work{}, f.err
}

func (f *fake) TotalsRows(context.Context, reports.Span) (time.Time, iter.Seq2[[]reports.Total, error], error) {
	return time.Time{}, func(func([]reports.Total, error) bool) {}, f.err
}

func (f *fake) TeamForecast(context.Context, string) (reports.Forecast, error) {
	return f.foretold, f.err
}

func (f *fake) TotalForecast(context.Context, string, int) (reports.TotalForecast, error) {
	return f.totalForetold, f.err
}

func (f *fake) TeamAnalytics(context.Context, string, reports.By, reports.Span) (reports.Analytics, error) {
	return reports.Analytics{Rollup: reports.Rollup{Zone: time.UTC}}, f.err
}

func (f *fake) Analytics(context.Context, string, reports.By, reports.Span) (reports.Analytics, error) {
	return reports.Analytics{Rollup: reports.Rollup{Zone: time.UTC}}, f.err
}

func (f *fake) Largest(context.Context, string, reports.Span, int) (reports.Largest, error) {
	return reports.Largest{Rollup: reports.Rollup{Zone: time.UTC}}, f.err
}

func (f *fake) TeamLargest(context.Context, string, reports.Span, int) (reports.Largest, error) {
	return reports.Largest{Rollup: reports.Rollup{Zone: time.UTC}}, f.err
}

func (f *fake) Totals(context.Context, reports.By, reports.Span) (reports.Totals, error) {
	return reports.Totals{}, f.err
}

func (f *fake) Activity(context.Context, string, reports.Span) (reports.Activity, error) {
	return reports.Activity{Rollup: reports.Rollup{Zone: time.UTC}}, f.err
}

func (f *fake) Engagement(context.Context, string) (reports.Engagement, error) {
	e := reports.Engagement{Rollup: reports.Rollup{Zone: time.UTC}}
	e.Open.Period.End = e.Open.Period.Start.Add(time.Hour)
	return e, f.err
}

func (f *fake) RegisterUser(context.Context, string, string, string, metering.By) (bool, error) {
	return true, f.err
}

func (f *fake) ChangeUser(context.Context, string, metering.UserChange, metering.By) error {
	return f.err
}

func (f *fake) ResetUser(context.Context, string, metering.By) (int, error) { return 1, f.err }

func (f *fake) Resets(
	context.Context, reports.ResetFilter, reports.Place, int,
) (reports.ResetPage, error) {
	return reports.ResetPage{}, f.err
}

func (f *fake) ResetRuns(
	context.Context, string, reports.Place, int,
) ([]reports.ResetRun, reports.Place, error) {
	return nil, reports.Place{}, f.err
}

func (f *fake) GrantCredits(context.Context, string, string, metering.Grant, metering.By) (bool, error) {
	return true, f.err
}

func (f *fake) Users(context.Context, string, string, int) ([]reports.User, bool, error) {
	return nil, false, f.err
}

func (f *fake) User(context.Context, string) (reports.User, error) { return reports.User{}, f.err }

func (f *fake) StuckAdmissions(
	context.Context, string, reports.Place, int,
) ([]*ledger.Admission, reports.Place, error) {
	return nil, reports.Place{}, f.err
}

func (f *fake) Admissions(
	context.Context, string, reports.AdmissionFilter, int64, int,
) ([]*ledger.Admission, int64, error) {
	return nil, 0, f.err
}

func (f *fake) Events(context.Context, string, *int64, *reports.EventPlace, int) (reports.EventPage, error) {
	return reports.EventPage{}, f.err
}

func (f *fake) Audit(context.Context, reports.AuditFilter, int64, int) (reports.AuditPage, error) {
	return reports.AuditPage{}, f.err
}

// Current is of nobody where the test did not say who stands where.
func (f *fake) Current(_ context.Context, userID string) (ledger.Usage, error) {
	if f.usage.Account == nil && f.err == nil {
		return ledger.Usage{}, quota.Unknown(userID, quota.UnknownUser)
	}
	return f.usage, f.err
}

func (f *fake) Plans(context.Context) ([]*metering.Plan, error) { return f.plans, f.err }

func (f *fake) Upgrade(context.Context, quota.Chain, time.Time) *quota.Plan   { return nil }
func (f *fake) AcknowledgeAlert(context.Context, quota.AlertID, string) error { return f.err }

func (f *fake) Alerts(context.Context, quota.Level, quota.AlertID, bool, int) (reports.AlertPage, error) {
	return reports.AlertPage{}, f.err
}

// Alert is alice's where the test did not say whose it is.
func (f *fake) Alert(context.Context, quota.AlertID) (ledger.Alert, error) {
	if f.alert.Level.Name == "" {
		f.alert.Level = quota.Level{Kind: quota.LevelUser, Name: "alice"}
	}
	return f.alert, nil
}

func (f *fake) Account(_ context.Context, _ string, anew bool) (quota.AccountID, error) {
	f.made = anew
	return accountID, f.err
}

func (f *fake) ping(context.Context) error { return f.err }

func (f *fake) VerifyTicket(context.Context, string) (*metering.Ticket, bool, error) {
	return nil, false, nil
}
func (f *fake) TicketAdmission(*metering.Ticket) *ledger.Admission { return f.adm }
func (f *fake) GetTicket(context.Context, *metering.Ticket) (*ledger.Admission, error) {
	return f.adm, f.err
}

func (f *fake) CompleteTicket(context.Context, *metering.Ticket, quota.Credits) (*ledger.Admission, error) {
	return f.adm, f.err
}

func (f *fake) ReleaseTicket(context.Context, *metering.Ticket) (*ledger.Admission, error) {
	return f.adm, f.err
}

func (f *fake) Lease(context.Context, quota.AccountID, quota.AdmissionID) (string, error) {
	return lease, nil
}

func (f *fake) VerifyLease(_ context.Context, token string, id quota.AdmissionID) (quota.AccountID, bool, error) {
	return accountID, token == lease && id == admID, nil
}

// testAuth knows the tokens "spender", "reader" and "admin" (service accounts of namespace transcripts with that right
// on alice), "exporter", who may spend for alice and bob, "backend", who may for everybody,
// "granter", who may grant alice credits, "watcher", who may see the queue and the audit log and list users, teams and
// deliveries, "master", who may do everything to those and to alice's account, "manager"
// and "reader", who have that right on the team newsroom, "nobody", who has no right,
// "abroad", which is for another audience, and "broken", which cannot be checked.
func testAuth() *access.Auth {
	return &access.Auth{
		Audiences: authenticator.Audiences{"usaged"},
		Portal:    access.NewPortal(portaltest.New(time.Time{}), nil),
		Scrapers: authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
			return &authenticator.Response{User: &user.DefaultInfo{Name: "prometheus"}},
				r.Header.Get("Authorization") == "Bearer prometheus", nil
		}),
		Authenticator: authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
			token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
			resp := &authenticator.Response{
				Audiences: authenticator.Audiences{"usaged"},
				User:      &user.DefaultInfo{Name: "system:serviceaccount:transcripts:" + token},
			}
			switch token {
			case "spender", "backend", "exporter", "reader", "admin", "watcher", "manager", "master", "granter",
				"analyst", "nobody", "unchecked":
				return resp, true, nil
			case "abroad":
				resp.Audiences = authenticator.Audiences{"elsewhere"}
				return resp, true, nil
			case "broken":
				return nil, false, &url.Error{Op: "Post", URL: "https://kubernetes",
					Err: errors.New("connection refused")}
			}
			return nil, false, errors.New("invalid bearer token")
		}),
		Authorizer: authorizer.AuthorizerFunc(
			func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
				if !a.IsResourceRequest() && a.GetVerb() == "get" && a.GetPath() == "/metrics" &&
					a.GetUser().GetName() == "prometheus" {
					return authorizer.DecisionAllow, "", nil
				}
				_, who, _ := strings.Cut(a.GetUser().GetName(), ":transcripts:")
				if who == "unchecked" {
					return authorizer.DecisionNoOpinion, "", errors.New("connection refused")
				}
				everywhere := map[string]string{"queue": "watcher list", "teams": "watcher list",
					"users": "watcher list, analyst analytics", "audit": "watcher list",
					"deliveries": "watcher list, master admin", "system": "reader get"}
				if strings.Contains(everywhere[a.GetResource()], who+" "+a.GetVerb()) && a.GetName() == "" &&
					a.GetNamespace() == "" && a.GetAPIGroup() == "usage.cantonesescribe.io" && a.IsResourceRequest() {
					return authorizer.DecisionAllow, "", nil
				}
				verbs := map[string]string{"spender": "spend", "backend": "spend", "exporter": "spend", "reader": "get",
					"admin": "adjust", "manager": "manage", "granter": "grant", "master": "admin"}
				mine := who == "backend" || a.GetName() == "alice" || (who == "exporter" && a.GetName() == "bob")
				switch a.GetResource() {
				case "teams":
					mine = a.GetName() == "newsroom"
				case "notificationkeys":
					mine = a.GetName() == admID.String()
				}
				if verbs[who] == a.GetVerb() && mine && a.GetNamespace() == "transcripts" &&
					a.GetAPIGroup() == "usage.cantonesescribe.io" && (a.GetResource() == "users" ||
					a.GetResource() == "teams" || a.GetResource() == "notificationkeys") && a.IsResourceRequest() {
					return authorizer.DecisionAllow, "", nil
				}
				return authorizer.DecisionNoOpinion, "", nil
			}),
	}
}

func handler(t *testing.T, f *fake) http.Handler {
	t.Helper()
	return New(f.options(t.Context(), testAuth()))
}

// options are those of a handler that asks the fake whatever it asks, and nothing beside the test: it learns no limits.
func (f *fake) options(draining context.Context, auth *access.Auth) Options {
	limits := NewRateLimiter(RateLimits{}, prometheus.NewRegistry())
	limits.learning = nil
	return Options{
		Usage: f, Admissions: f, Intervene: f, Tickets: f, Events: f, History: f, Alerts: f, Users: f, Search: f,
		Resets: f,
		Teams:  f, TeamReports: f, Analytics: f, Largest: f, Operators: f, Forecasts: f, Simulations: f, Advice: f,
		ReadPlan: func(context.Context, []byte) (*quota.Plan, error) { return freePlan(), f.err },
		Queue:    f, Leases: f, Auth: auth, Database: f.ping, Notifications: f, Deliveries: f,
		Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(), Draining: draining,
		Limits: limits, Watch: func(quota.Level) Watching { return newWatching(metering.Frame{}, f.err) },
		Clusters: f.Clusters,
		Work:     func(context.Context) (metering.Work, error) { return metering.Work{}, f.err },
		Gauges:   func(context.Context) (metering.Gauge, error) { return metering.Gauge{}, f.err },
	}
}

type request struct {
	method, path, token, contentType, body string
	// key is sent as Idempotency-Key unless it is "-"; "k" if empty.
	key     string
	headers map[string]string
}

func do(h http.Handler, q request) *httptest.ResponseRecorder {
	if q.method == "" {
		q.method = http.MethodPost
	}
	if q.path == "" {
		q.path = "/api/v1/admissions"
	}
	r := httptest.NewRequest(q.method, q.path, strings.NewReader(q.body))
	if q.token == "" {
		q.token = "Bearer spender"
	}
	if q.token != "-" {
		r.Header.Set("Authorization", q.token)
	}
	if q.contentType == "" {
		q.contentType = "application/json"
	}
	if q.body != "" && q.contentType != "-" {
		r.Header.Set("Content-Type", q.contentType)
	}
	if q.key == "" {
		q.key = "k"
	}
	if q.key != "-" {
		r.Header.Set(headerKey, q.key)
	}
	for name, value := range q.headers {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func decode(t *testing.T, w *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	var v map[string]any
	d := json.NewDecoder(w.Body)
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("the answer is not JSON: %v", err)
	}
	return v
}

func queued() *ledger.Admission {
	return &ledger.Admission{
		Admission: quota.Admission{
			ID: admID, Account: accountID, State: quota.Queued, Reason: quota.ConcurrencyLimit, CreatedAt: noon,
			Request: quota.Request{Estimate: 165_500, FileSize: 1 << 20}, Lease: 2 * time.Minute,
			LeaseUntil: noon.Add(2 * time.Minute),
		},
		UserID: "alice", Position: 2, Waiting: 3,
	}
}

func admitted() *ledger.Admission {
	a := queued()
	a.State, a.Reason, a.Position, a.Waiting, a.AdmittedAt = quota.Admitted, "", 0, 0, noon
	return a
}

func settled() *ledger.Admission {
	a := admitted()
	actual := quota.Credits(165_000)
	a.State, a.Actual, a.EndedAt = quota.Settled, &actual, noon.Add(time.Minute)
	return a
}

func freePlan() *quota.Plan {
	return new(plans.Free(func(p *metering.Plan) {
		p.Limits.Queued, p.AlertThresholds = quota.AtMost[int32](0), []int32{80, 100}
	}).Plan)
}

func proPlan() *quota.Plan {
	return &quota.Plan{
		Name: "pro", DisplayName: "Pro", Rank: 20, Currency: "USD", PeriodPrice: 79_500_000,
		Features: []string{"priority"},
		Limits: quota.Limits{
			Credits: quota.Limit[quota.Credits]{Unlimited: true}, FileSize: quota.AtMost(int64(1 << 30)),
			Audio:      quota.AtMost(24 * time.Hour),
			Concurrent: quota.AtMost(int32(5)), Queued: quota.AtMost(int32(100)),
		},
		OverageMax: quota.WholeCredits(10), OveragePrice: 20_000, CarryOverMax: quota.WholeCredits(5),
	}
}

func alice() *quota.Account {
	return &quota.Account{
		ID: accountID, UserID: "alice", Plan: freePlan(), Zone: time.UTC,
		Balance: quota.Balance{
			Used: 24 * quota.Credit, PlanUsed: 24 * quota.Credit, Active: 1,
			Period: quota.Period{Start: nextMonth.AddDate(0, -1, 0), End: nextMonth},
		},
	}
}

func TestRequestsThatFail(t *testing.T) {
	for name, tc := range map[string]struct {
		request
		err        error
		want       int
		wantDetail string
		wantType   string
	}{
		"no credentials": {request: request{body: goodBody, token: "-"}, want: 401, wantDetail: "bearer token"},
		"basic credentials": {request: request{body: goodBody, token: "Basic YTpi"}, want: 401,
			wantDetail: "bearer token"},
		"empty token": {request: request{body: goodBody, token: "Bearer "}, want: 401,
			wantDetail: "bearer token"},
		"invalid token": {request: request{body: goodBody, token: "Bearer forged"}, want: 401,
			wantDetail: "audience usaged"},
		"foreign audience": {request: request{body: goodBody, token: "Bearer abroad"}, want: 401,
			wantDetail: "audience usaged"},
		"unreachable": {request: request{body: goodBody, token: "Bearer broken"}, want: 503,
			wantDetail: "cannot be checked"},
		"unchecked right": {request: request{body: goodBody, token: "Bearer unchecked"}, want: 503,
			wantDetail: "cannot be checked"},
		"no right": {request: request{body: goodBody, token: "Bearer nobody"}, want: 403,
			wantDetail: `may not spend for user "alice"`},
		"may only read": {request: request{body: goodBody, token: "Bearer reader"}, want: 403,
			wantDetail: "verb spend"},
		"another user": {request: request{body: strings.Replace(goodBody, "alice", "bob", 1)}, want: 403,
			wantDetail: `user "bob"`},
		"lease for an admit": {request: request{body: goodBody, token: "Lease " + lease}, want: 401,
			wantDetail: "needs a bearer token"},

		"no key": {request: request{body: goodBody, key: "-"}, want: 400,
			wantDetail: "Idempotency-Key is required"},
		"long key": {request: request{body: goodBody, key: strings.Repeat("k", 256)}, want: 400,
			wantDetail: "has 256 bytes, it must have 1 to 255"},
		"key of spaces": {request: request{body: goodBody, key: "a b"}, want: 400,
			wantDetail: `"a b" must consist of visible characters without spaces`},

		"form": {request: request{body: "user_id=alice",
			contentType: "application/x-www-form-urlencoded"}, want: 415, wantDetail: "must be application/json"},
		"no content type": {request: request{body: goodBody, contentType: "-"}, want: 415,
			wantDetail: "must be application/json"},
		"other charset": {request: request{body: goodBody, contentType: "application/json; charset=big5"},
			want: 415, wantDetail: "UTF-8"},
		"large body": {request: request{body: `{"user_id":"` + strings.Repeat("a", 64<<10) + `"}`}, want: 413,
			wantDetail: "limit of 65536 bytes"},
		"empty body": {request: request{body: " "}, want: 400, wantDetail: "the body is empty"},
		"malformed":  {request: request{body: `{"user_id":"alice",}`}, want: 400, wantDetail: "at byte 20"},
		"cut off":    {request: request{body: `{"user_id":`}, want: 400, wantDetail: "unexpected end"},
		"two values": {request: request{body: goodBody + "{}"}, want: 400, wantDetail: "after top-level value"},
		"array":      {request: request{body: `[]`}, want: 400, wantDetail: "must be an object"},
		"unknown field": {request: request{body: `{"user_id":"alice","minutes":3}`}, want: 400,
			wantDetail: `no field "minutes"`},
		"number as string": {request: request{body: `{"estimated_duration_seconds":"60"}`}, want: 400,
			wantDetail: "estimated_duration_seconds is of type string, it must be a number"},
		"string as number": {request: request{body: `{"user_id":7}`}, want: 400,
			wantDetail: "user_id is of type number, it must be a string"},
		"fraction of a byte": {request: request{body: `{"file_size_bytes":1.5}`}, want: 400,
			wantDetail: "file_size_bytes"},
		"body not wanted": {request: request{path: admPath + "/heartbeat", body: "{}"}, want: 400,
			wantDetail: "takes no body"},

		"too large a number": {want: 400, wantDetail: "limit: ",
			request: request{method: "GET", path: "/api/v1/usage/history?user_id=alice&limit=99999999999"}},
		"neither true nor false": {want: 400, wantDetail: `unread: "maybe" must be true or false`,
			request: request{method: "GET", path: "/api/v1/usage/alerts?user_id=alice&unread=maybe"}},
		"no instant": {request: request{method: "GET", path: "/api/v1/audit?since=yesterday"}, want: 400,
			wantDetail: `since: "yesterday" must be an instant such as`},

		"null body": {request: request{body: `null`}, want: 422, wantDetail: "user_id is required"},
		"no user":   {request: request{body: `{}`}, want: 422, wantDetail: "user_id is required"},
		"bad user": {request: request{body: `{"user_id":"-alice"}`}, want: 422,
			wantDetail: `user_id: "-alice"`},
		"long user": {request: request{body: `{"user_id":"` + strings.Repeat("a", 64) + `"}`}, want: 422,
			wantDetail: "must have 1 to 63 letters, digits"},
		"no duration": {request: request{body: `{"user_id":"alice"}`}, want: 422,
			wantDetail: "estimated_duration_seconds is required"},
		"negative duration": {request: request{body: `{"user_id":"alice","estimated_duration_seconds":-5}`}, want: 422,
			wantDetail: "estimated_duration_seconds: -5 must be between 0.001 and 2592000"},
		"zero duration": {request: request{body: `{"user_id":"alice","estimated_duration_seconds":0}`}, want: 422,
			wantDetail: "estimated_duration_seconds: 0 must"},
		"negative zero": {request: request{body: `{"user_id":"alice","estimated_duration_seconds":-0.0}`},
			want: 422, wantDetail: "must be between"},
		"too long": {request: request{body: `{"user_id":"alice","estimated_duration_seconds":2592000.001}`},
			want: 422, wantDetail: "2592000.001 must be between"},
		"absurd": {request: request{body: `{"user_id":"alice","estimated_duration_seconds":` +
			strings.Repeat("9", 400) + `}`}, want: 422, wantDetail: "999... must be between"},
		"exponent": {request: request{body: `{"user_id":"alice","estimated_duration_seconds":1e30}`},
			want: 422, wantDetail: "no exponent"},
		"microseconds": {request: request{body: `{"user_id":"alice","estimated_duration_seconds":1.0005}`},
			want: 422, wantDetail: "at most 3 decimals"},
		"no file size": {request: request{body: `{"user_id":"alice","estimated_duration_seconds":1}`}, want: 422,
			wantDetail: "file_size_bytes: 0 must be between 1 and 1099511627776"},
		"absurd file size": {request: request{
			body: `{"user_id":"alice","estimated_duration_seconds":1,"file_size_bytes":1099511627777}`}, want: 422,
			wantDetail: "file_size_bytes: 1099511627777"},
		"priority": {request: request{body: strings.Replace(goodBody, "}", `,"priority":1001}`, 1)}, want: 422,
			wantDetail: "priority: 1001 must be between -1000 and 1000"},
		"short lease": {request: request{body: strings.Replace(goodBody, "}", `,"lease_seconds":4.999}`, 1)},
			want: 422, wantDetail: "lease_seconds: 4.999 must be between 5 and 3600"},
		"actual": {request: request{path: admPath + "/complete", body: `{"duration_seconds":-1}`}, want: 422,
			wantDetail: "duration_seconds: -1"},
		"no actual": {request: request{path: admPath + "/complete", body: `{}`}, want: 422,
			wantDetail: "duration_seconds is required"},
		"check of nobody": {request: request{path: "/api/v1/usage/check", body: `{"user_id":"a b"}`}, want: 422,
			wantDetail: "user_id"},

		"id": {request: request{method: "GET", path: "/api/v1/admissions/7"}, want: 400,
			wantDetail: "id"},
		"unknown admission": {request: request{method: "GET",
			path: "/api/v1/admissions/0198c5f0-0000-8000-8000-00000000ffff"}, want: 404, wantType: "not-found"},
		"wait": {request: request{method: "GET", path: admPath + "?wait=soon"}, want: 400,
			wantDetail: `wait: "soon"`},
		"long wait": {request: request{method: "GET", path: admPath + "?wait=61s"}, want: 422,
			wantDetail: "wait: 1m1s must be between 0s and 1m0s"},
		"foreign lease": {request: request{path: admPath + "/release", token: "Lease forged"}, want: 403,
			wantDetail: "not that of admission"},
		"not its holder": {request: request{path: admPath + "/release", token: "Bearer reader"}, want: 403,
			wantDetail: "may not spend"},
		"no user to report": {request: request{method: "GET", path: "/api/v1/usage/current"}, want: 400,
			wantDetail: "user_id is required", wantType: "malformed-request"},
		"report for nobody": {request: request{method: "GET", path: "/api/v1/usage/current?user_id=alice",
			token: "Bearer nobody"}, want: 403, wantDetail: "spend or get"},
		"no user's history": {request: request{method: "GET", path: "/api/v1/usage/history"}, want: 400,
			wantDetail: "user_id"},
		"history for nobody": {request: request{method: "GET", path: "/api/v1/usage/history?user_id=alice",
			token: "Bearer nobody"}, want: 403, wantDetail: "spend or get"},
		"history by lease": {request: request{method: "GET", path: "/api/v1/usage/history?user_id=alice",
			token: "Lease " + lease}, want: 401, wantDetail: "bearer"},
		"no page": {request: request{method: "GET", path: "/api/v1/usage/history?user_id=alice&limit=0"},
			want: 422, wantDetail: "limit: 0 must be between 1 and 100"},
		"large page": {request: request{method: "GET", path: "/api/v1/usage/history?user_id=alice&limit=101"},
			want: 422, wantDetail: "limit: 101 must be between 1 and 100"},
		"page of many": {request: request{method: "GET", path: "/api/v1/usage/history?user_id=alice&limit=many"},
			want: 400, wantDetail: `limit: "many" must be a whole number`, wantType: "malformed-request"},
		"page of more than there are numbers": {request: request{method: "GET",
			path: "/api/v1/usage/history?user_id=alice&limit=9" + strings.Repeat("0", 20)}, want: 400,
			wantDetail: "is further from zero than any number", wantType: "malformed-request"},
		"misspelt parameter": {request: request{method: "GET", path: "/api/v1/usage/current?user_id=alice&max-age=5"},
			want: 400, wantDetail: `"max-age" is no parameter of this call, which takes max_age, user_id in its URL`,
			wantType: "malformed-request"},
		"parameter where there is none": {request: request{path: admPath + "/release?force=true"}, want: 400,
			wantDetail: `"force" is no parameter of this call, which takes none`, wantType: "malformed-request"},
		"malformed query": {request: request{method: "GET", path: "/api/v1/usage/current?user_id=alice&max_age=%zz"},
			want: 400, wantDetail: `the query of the URL: invalid URL escape "%zz"`, wantType: "malformed-request"},
		"made-up cursor": {request: request{method: "GET", path: "/api/v1/usage/history?user_id=alice&cursor=3"},
			want: 400, wantDetail: `cursor: "3" is not the next_cursor of a page`},
		"limits by lease": {request: request{method: "GET", path: "/api/v1/usage/limits", token: "Lease " + lease},
			want: 401, wantDetail: "bearer"},
		"no such path":   {request: request{method: "GET", path: "/api/v2"}, want: 404, wantDetail: "/api/v2"},
		"no such method": {request: request{method: "DELETE", path: admPath}, want: 405, wantDetail: "only GET"},

		"key reused": {request: request{body: goodBody}, err: ledger.ErrKeyReused, want: 422, wantType: "key-reused"},
		"database's conflict": {
			request: request{path: admPath + "/release"}, want: 409, wantDetail: "another one is there",
			err: fmt.Errorf("release: %w (%w)", quota.Conflict("", "another one is there"),
				errors.New("secret words of the database")),
		},
		"conflict": {request: request{path: admPath + "/release"}, err: quota.Unfit(quota.Settled, "it was charged"),
			want: 409, wantDetail: "it was charged"},
		"late ticket": {request: request{path: admPath + "/release"}, err: metering.ErrTicketExpired, want: 409,
			wantType: "ticket-expired"},
		"invalid": {request: request{body: goodBody}, err: fmt.Errorf("%w: priority", ledger.ErrInvalid), want: 422,
			wantDetail: "priority"},
		"overloaded": {request: request{body: goodBody}, err: ledger.ErrOverloaded, want: 503,
			wantDetail: "too many calls"},
		"unreadable": {
			request: request{body: goodBody}, err: &ledger.UnreadableError{UserID: "alice",
				What: `time zone "Mars/Olympus"`, Declared: true}, want: 503,
			wantDetail: `user "alice" cannot be read by this release: time zone "Mars/Olympus"; ` +
				"correct the user's UserQuota, or upgrade",
		},
		"no database": {request: request{body: goodBody}, err: fmt.Errorf("%w: dial tcp 10.0.0.1",
			ledger.ErrUnavailable), want: 503, wantDetail: "the database cannot be reached"},
		"unknown user": {request: request{body: goodBody}, err: quota.Unknown("alice", quota.UnknownUser), want: 404,
			wantType: "unknown-user"},
		"gave up": {request: request{body: goodBody}, err: context.DeadlineExceeded, want: 503,
			wantDetail: "given up"},
		"bug": {request: request{body: goodBody}, err: errors.New("secret of the database"), want: 500,
			wantDetail: "an internal error"},
	} {
		t.Run(name, func(t *testing.T) {
			w := do(handler(t, &fake{err: tc.err, adm: admitted()}), tc.request)
			if w.Code != tc.want {
				t.Fatalf("status: got %d, want %d; body %s", w.Code, tc.want, w.Body)
			}
			if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("content type: got %q", got)
			}
			if (w.Code == 503) != (w.Header().Get("Retry-After") != "") {
				t.Errorf("Retry-After: got %q with status %d", w.Header().Get("Retry-After"), w.Code)
			}
			if (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
				t.Errorf("WWW-Authenticate: got %q with status %d", w.Header().Get("WWW-Authenticate"), w.Code)
			}
			got := decode(t, w)
			if got["status"] != json.Number(fmt.Sprint(tc.want)) || got["title"] == "" {
				t.Errorf("problem: got %v", got)
			}
			if detail, _ := got["detail"].(string); !strings.Contains(detail, tc.wantDetail) ||
				strings.Contains(detail, "10.0.0.1") || strings.Contains(detail, "secret") {
				t.Errorf("detail: got %q, want it to contain %q", detail, tc.wantDetail)
			}
			if kind, _ := got["type"].(string); !strings.HasSuffix(kind, "/"+tc.wantType) && tc.wantType != "" {
				t.Errorf("type: got %q, want %q", kind, tc.wantType)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		decision quota.Decision
		upgrade  *quota.Plan
		want     int
		wantBody string
	}{
		"credits": {
			decision: quota.Decision{
				Reason: quota.CreditsExhausted, Bound: quota.Bound{Unit: quota.UnitCredits, Limit: 1_800_000,
					Used: 645_000, Reserved: 60_000, Requested: 2_400_000, Remaining: 1_095_000},
			},
			upgrade: proPlan(), want: 429,
			wantBody: `{"type":"https://usage.cantonesescribe.io/problems/credits-exhausted",
			    "title":"Credits exhausted","status":429,
				"detail":"40 credits are needed, 18.25 of 30 remain in this period (10.75 used, 1 reserved)",
				    "reason":"CreditsExhausted",
				"limit":30,"used":10.75,"reserved":1,"requested":40,"remaining":18.25,"unit":"credits",
				    "resets_at":"2026-04-01T00:00:00Z",
				"retry_after":1512000,"upgrade_plan":{"name":"pro","display_name":"Pro"}}`,
		},
		"slots": {
			decision: quota.Decision{Reason: quota.ConcurrencyLimit,
				Bound: quota.Bound{Unit: quota.UnitJobs, Limit: 1, Used: 1, Requested: 1}},
			want: 429,
			wantBody: `{"type":"https://usage.cantonesescribe.io/problems/concurrency-limit",
			    "title":"Concurrency limit","status":429,
				"detail":"1 of 1 jobs are running","reason":"ConcurrencyLimit","limit":1,"used":1,"reserved":0,
				    "requested":1,"remaining":0,
				"unit":"jobs","retry_after":5}`,
		},
		"cost": {
			decision: quota.Decision{
				Reason: quota.DailyCostCeiling, RetryAt: noon.Add(12 * time.Hour),
				Bound: quota.Bound{Unit: quota.UnitMoney, Currency: "USD", Limit: 50_000_000,
					Used: 49_500_000, Requested: 600_000,
					Remaining: 500_000},
			},
			want: 429,
			wantBody: `{"type":"https://usage.cantonesescribe.io/problems/daily-cost-ceiling",
			    "title":"Daily cost ceiling","status":429,
				"detail":"the job would cost 0.6 USD, 0.5 of the daily ceiling of 50 remain",
				    "reason":"DailyCostCeiling",
				    "limit":50,"used":49.5,
				"reserved":0,"requested":0.6,"remaining":0.5,"unit":"money",
				    "currency":"USD","resets_at":"2026-03-15T00:00:00Z",
				    "retry_after":43200}`,
		},
		"file": {
			decision: quota.Decision{Reason: quota.FileTooLarge,
				Bound: quota.Bound{Unit: quota.UnitBytes, Limit: 25 << 20, Requested: 26 << 20, Remaining: 25 << 20}},
			want: 413,
			wantBody: `{"type":"https://usage.cantonesescribe.io/problems/file-too-large","title":"File too large",
			    "status":413,
				"detail":"the file has 26Mi, the limit is 25Mi per file","reason":"FileTooLarge","limit":26214400,
				    "used":0,"reserved":0,
				"requested":27262976,"remaining":26214400,"unit":"bytes"}`,
		},
		"audio": {
			decision: quota.Decision{Reason: quota.AudioTooLong,
				Bound: quota.Bound{Unit: quota.UnitAudio, Limit: 60_000, Requested: 165_500, Remaining: 60_000}},
			want: 413,
			wantBody: `{"type":"https://usage.cantonesescribe.io/problems/audio-too-long","title":"Audio too long",
			    "status":413,
				"detail":"the audio lasts 2m45.5s, the limit is 1m0s per job","reason":"AudioTooLong","limit":60,
				    "used":0,"reserved":0,
				"requested":165.5,"remaining":60,"unit":"seconds"}`,
		},
		"suspended": {
			decision: quota.Decision{Reason: quota.UserSuspended}, want: 403,
			wantBody: `{"type":"https://usage.cantonesescribe.io/problems/user-suspended","title":"User suspended",
			    "status":403,
				"detail":"the user is suspended","reason":"UserSuspended"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := refusal(tc.decision, quota.Alone(alice()), tc.upgrade, noon)
			p := classify(err)
			got, _ := json.Marshal(p)
			if p.Status != tc.want {
				t.Errorf("status: got %d, want %d", p.Status, tc.want)
			}
			equalJSON(t, string(got), tc.wantBody)
			w := do(handler(t, &fake{admit: metering.AdmitResult{Decision: tc.decision, On: quota.Alone(alice()),
				Upgrade: tc.upgrade}}), request{body: goodBody})
			if w.Code != tc.want || (w.Code == 429) != (w.Header().Get("Retry-After") != "") {
				t.Errorf("answer: got %d with Retry-After %q", w.Code, w.Header().Get("Retry-After"))
			}
		})
	}
}

func equalJSON(t *testing.T, got, want string) {
	t.Helper()
	parse := func(s string) (v any) {
		d := json.NewDecoder(strings.NewReader(s))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%v in %s", err, s)
		}
		return v
	}
	if diff := cmp.Diff(parse(want), parse(got)); diff != "" {
		t.Errorf("unexpected JSON (-want +got):\n%s", diff)
	}
}

func TestAdmissionAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		res  metering.AdmitResult
		want int
		body string
	}{
		"admitted": {
			res: metering.AdmitResult{Admission: admitted(), Created: true}, want: 201,
			body: `{"id":"0198c5f0-0000-8000-8000-000000000001","user_id":"alice","state":"Admitted",
			    "estimated_duration_seconds":165.5,
				"estimated_credits":2.758,"estimated_ms":165500,"file_size_bytes":1048576,"priority":0,
				    "created_at":"2026-03-14T12:00:00Z",
				"admitted_at":"2026-03-14T12:00:00Z","lease_seconds":120,"lease_until":"2026-03-14T12:02:00Z",
				    "lease_token":"the-lease"}`,
		},
		"queued": {
			res: metering.AdmitResult{Admission: queued(), Created: true,
				Decision: quota.Decision{Outcome: quota.Wait}}, want: 202,
			body: `{"id":"0198c5f0-0000-8000-8000-000000000001","user_id":"alice","state":"Queued",
			    "reason":"ConcurrencyLimit","position":2,
				"waiting":3,"estimated_duration_seconds":165.5,"estimated_credits":2.758,"estimated_ms":165500,
				    "file_size_bytes":1048576,
				"priority":0,"created_at":"2026-03-14T12:00:00Z","lease_seconds":120,
				    "lease_until":"2026-03-14T12:02:00Z","lease_token":"the-lease"}`,
		},
		"repeated": {
			res: metering.AdmitResult{Admission: settled()}, want: 200,
			body: `{"id":"0198c5f0-0000-8000-8000-000000000001","user_id":"alice","state":"Settled",
			    "estimated_duration_seconds":165.5,
				"estimated_credits":2.758,"estimated_ms":165500,"charged_credits":2.75,"charged_ms":165000,
				    "file_size_bytes":1048576,
				"priority":0,"created_at":"2026-03-14T12:00:00Z","admitted_at":"2026-03-14T12:00:00Z",
				    "ended_at":"2026-03-14T12:01:00Z",
				"lease_seconds":120,"lease_until":"2026-03-14T12:02:00Z","lease_token":"the-lease"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{admit: tc.res}
			w := do(handler(t, f), request{body: goodBody, contentType: "application/json; charset=UTF-8"})
			if w.Code != tc.want {
				t.Fatalf("status: got %d, want %d; %s", w.Code, tc.want, w.Body)
			}
			equalJSON(t, w.Body.String(), tc.body)
			if location := w.Header().Get("Location"); (w.Code == 200) != (location == "") ||
				(location != "" && location != admPath) {
				t.Errorf("Location: got %q", location)
			}
			f.got.BodyHash = nil
			want := metering.AdmitRequest{
				UserID: "alice", Key: "k", Source: quota.SourceAPI, Namespace: "transcripts", Name: "spender",
				RequestedBy: "system:serviceaccount:transcripts:spender", Estimate: 165_500, FileSize: 1 << 20,
				Queue: true, Lease: quota.DefaultLease,
			}
			if diff := cmp.Diff(want, f.got); diff != "" {
				t.Errorf("request to metering (-want +got):\n%s", diff)
			}
		})
	}
}

// The same request in other words is the same request, and each part of it counts.
func TestBodyHash(t *testing.T) {
	hash := func(body string) string {
		t.Helper()
		f := &fake{admit: metering.AdmitResult{Admission: admitted()}}
		if w := do(handler(t, f), request{body: body}); w.Code != 200 {
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
		return string(f.got.BodyHash)
	}
	const base = `{"user_id":"alice","estimated_duration_seconds":60,"file_size_bytes":1}`
	for name, tc := range map[string]struct {
		body string
		same bool
	}{
		"another order": {`{"file_size_bytes":1, "estimated_duration_seconds":60, "user_id":"alice"}`, true},
		"decimals":      {`{"user_id":"alice","estimated_duration_seconds":60.000,"file_size_bytes":1}`, true},
		"spelled anew": {
			`{"user_id":"\u0061lice","estimated_duration_seconds":6e1,"file_size_bytes":1.0,"priority":0.0}`, true},
		"defaults": {`{"user_id":"alice","estimated_duration_seconds":60,"file_size_bytes":1,"queue":true,
		    "priority":0,"lease_seconds":120}`, true},
		"another estimate": {`{"user_id":"alice","estimated_duration_seconds":60.001,"file_size_bytes":1}`, false},
		"another size":     {`{"user_id":"alice","estimated_duration_seconds":60,"file_size_bytes":2}`, false},
		"does not queue": {`{"user_id":"alice","estimated_duration_seconds":60,"file_size_bytes":1,"queue":false}`,
			false},
		"priority": {`{"user_id":"alice","estimated_duration_seconds":60,"file_size_bytes":1,"priority":1}`,
			false},
		"lease": {
			`{"user_id":"alice","estimated_duration_seconds":60,"file_size_bytes":1,"lease_seconds":5}`, false},
	} {
		if got := hash(tc.body) == hash(base); got != tc.same {
			t.Errorf("%s: got same=%t, want %t", name, got, tc.same)
		}
	}
}

func TestHolders(t *testing.T) {
	for _, token := range []string{"Lease " + lease, "lease " + lease, "Bearer spender"} {
		for path, body := range map[string]string{"/heartbeat": "", "/release": "",
			"/complete": `{"duration_seconds": 165}`} {
			f := &fake{adm: settled()}
			w := do(handler(t, f), request{path: admPath + path, token: token, body: body})
			if w.Code != 200 || f.holder != accountID {
				t.Errorf("%s with %q: got %d for account %v: %s", path, token, w.Code, f.holder, w.Body)
			}
			if path == "/complete" && f.actual != 165_000 {
				t.Errorf("actual: got %d", f.actual)
			}
		}
		if w := do(handler(t, &fake{adm: queued()}),
			request{method: "GET", path: admPath, token: token}); w.Code != 200 || decode(t, w)["lease_token"] != nil {
			t.Errorf("GET with %q: got %d: %s", token, w.Code, w.Body)
		}
	}
	if w := do(handler(t, &fake{adm: queued()}),
		request{method: "GET", path: admPath, token: "Bearer reader"}); w.Code != 200 {
		t.Errorf("GET by somebody who may read: got %d: %s", w.Code, w.Body)
	}
}

// A long poll ends with the process, not after it.
func TestWaitEndsWhenDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		draining, drain := context.WithCancel(t.Context())
		f := &fake{adm: queued(), wait: func(ctx context.Context) (*ledger.Admission, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		h := New(f.options(draining, testAuth()))
		done := make(chan *httptest.ResponseRecorder)
		go func() { done <- do(h, request{method: "GET", path: admPath + "?wait=30s"}) }()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("answered before anything happened")
		default:
		}
		if w := do(h, request{method: "GET", path: "/readyz", token: "-"}); w.Code != 200 {
			t.Errorf("readyz: got %d", w.Code)
		}
		drain()
		if w := <-done; w.Code != 200 || decode(t, w)["state"] != "Queued" {
			t.Errorf("got %d: %s", w.Code, w.Body)
		}
		if w := do(h, request{method: "GET", path: "/readyz", token: "-"}); w.Code != 503 {
			t.Errorf("readyz while draining: got %d", w.Code)
		}
	})
}

func TestCheck(t *testing.T) {
	for name, tc := range map[string]struct {
		res  metering.CheckResult
		want string
	}{
		"fine": {
			metering.CheckResult{Decision: quota.Decision{Outcome: quota.Admit}},
			`{"can_process":true,"would_queue":false,"message":"within all limits","plan":{"name":"free",
			    "display_name":"Free"},
				"remaining_credits":6,"resets_at":"2026-04-01T00:00:00Z"}`,
		},
		"would wait": {
			metering.CheckResult{Decision: quota.Decision{Outcome: quota.Wait, Reason: quota.ConcurrencyLimit,
				Bound: quota.Bound{Unit: quota.UnitJobs, Limit: 1, Used: 1, Requested: 1}}},
			`{"can_process":true,"would_queue":true,"blocking_reason":"ConcurrencyLimit",
			    "message":"1 of 1 jobs are running","limit":1,"used":1,
				"reserved":0,"requested":1,"remaining":0,"unit":"jobs","plan":{"name":"free","display_name":"Free"},
				    "remaining_credits":6,
				"resets_at":"2026-04-01T00:00:00Z"}`,
		},
		"refused": {
			metering.CheckResult{
				Decision: quota.Decision{Reason: quota.CreditsExhausted, RetryAt: nextMonth,
					Bound: quota.Bound{Unit: quota.UnitCredits, Limit: 1_800_000, Used: 1_440_000, Requested: 600_000,
						Remaining: 360_000}},
				Upgrade: proPlan(),
			},
			`{"can_process":false,"would_queue":false,"blocking_reason":"CreditsExhausted",
				"message":"10 credits are needed, 6 of 30 remain in this period (24 used, 0 reserved)","limit":30,
				    "used":24,"reserved":0,"requested":10,
				"remaining":6,"unit":"credits","plan":{"name":"free","display_name":"Free"},"remaining_credits":6,
				    "resets_at":"2026-04-01T00:00:00Z",
				"retry_after":1512000,"upgrade_plan":{"name":"pro","display_name":"Pro"}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.res.On, tc.res.Now = quota.Alone(alice()), noon
			for _, path := range []string{"/api/v1/usage/check", "/api/v1/transcription/check-limits"} {
				w := do(handler(t, &fake{check: tc.res}),
					request{path: path, token: "Bearer reader", body: goodBody, key: "-"})
				if w.Code != 200 {
					t.Fatalf("status: got %d: %s", w.Code, w.Body)
				}
				equalJSON(t, w.Body.String(), with(tc.want, `"as_of":"2026-03-14T12:00:00Z"`))
			}
		})
	}
}

func TestCurrentUsage(t *testing.T) {
	usage := ledger.Usage{Account: alice(), Now: noon, Last: &quota.ClosedPeriod{
		Period: quota.Period{Start: nextMonth.AddDate(0, -2, 0), End: nextMonth.AddDate(0, -1, 0)}, Used: 90_000,
	}}
	usage.Account.Lots = []quota.Lot{{
		Kind: quota.LotGrant, Name: "goodwill", Credits: 600_000, Used: 90_000, Reserved: 30_000,
	}}
	usage.Account.Amounts = quota.Amounts{Currency: "USD", Cost: 144_000}
	usage.Account.Other = &quota.OtherAmounts{List: []quota.Amounts{
		{Currency: "EUR", Charged: 900_000}, {Currency: "JPY", ReservedCost: 1},
	}}
	w := do(handler(t, &fake{usage: usage}),
		request{method: "GET", path: "/api/v1/usage/current?user_id=alice", token: "Bearer reader"})
	equalJSON(t, w.Body.String(), `{"user_id":"alice","plan":{"name":"free","display_name":"Free"},"suspended":false,
	    "used_credits":24,
		"reserved_credits":0,"limit_credits":38,"remaining_credits":14,"running":1,"queued":0,
		    "period_start":"2026-03-01T00:00:00Z",
		"resets_at":"2026-04-01T00:00:00Z","alerts":[],"as_of":"2026-03-14T12:00:00Z",
		"limits":{"credits":30,"file_size_bytes":26214400,"audio_duration_seconds":86400,"concurrent":1,"queued":0,
		    "unlimited":[]},
		"lots":[{"kind":"plan","credits":30,"used_credits":24,"reserved_credits":0,"remaining_credits":6,
		    "ends_at":"2026-04-01T00:00:00Z"},
		  {"kind":"grant","name":"goodwill","credits":10,"used_credits":1.5,"reserved_credits":0.5,
		    "remaining_credits":8}],
		"last_period":{"start":"2026-02-01T00:00:00Z","end":"2026-03-01T00:00:00Z","used_credits":1.5},
		"amounts":[{"currency":"USD","provider_cost":0.144,"price":0},
		    {"currency":"EUR","provider_cost":0,"price":0.9}]}`)
}

func TestLimits(t *testing.T) {
	plans := []*metering.Plan{{Plan: *proPlan()}, {Plan: *freePlan()}, {Plan: quota.Plan{Name: "old", Retired: true}}}
	const offered = `"plans":[
		{"name":"free","display_name":"Free","rank":0,"default":true,"price_per_period":0,"currency":"USD",
		    "features":[],
		 "limits":{"credits":30,"file_size_bytes":26214400,"audio_duration_seconds":86400,"concurrent":1,"queued":0,
		     "unlimited":[]}},
		{"name":"pro","display_name":"Pro","rank":20,"default":false,"price_per_period":79.5,"currency":"USD",
		    "features":["priority"],
		 "limits":{"file_size_bytes":1073741824,"audio_duration_seconds":86400,"concurrent":5,"queued":100,
		     "unlimited":["credits"]},
		 "carry_over_credits":5,"overage":{"max_credits":10,"price_per_credit":0.02}}]`
	h := handler(t, &fake{plans: plans, usage: ledger.Usage{Account: alice(), Now: noon}})
	// The plans are for everybody who is somebody.
	equalJSON(t, do(h, request{method: "GET", path: "/api/v1/usage/limits", token: "Bearer nobody"}).Body.String(),
		`{`+offered+`}`)
	equalJSON(t, do(h, request{method: "GET", path: "/api/v1/usage/limits?user_id=alice"}).Body.String(), `{`+offered+`,
		"user":{"user_id":"alice","plan":{"name":"free","display_name":"Free"},
		"limits":{"credits":30,"file_size_bytes":26214400,"audio_duration_seconds":86400,"concurrent":1,"queued":0,
		    "unlimited":[]}}}`)
	if w := do(h, request{method: "GET", path: "/api/v1/usage/limits?user_id=alice",
		token: "Bearer nobody"}); w.Code != 403 {
		t.Errorf("limits of a user by somebody without rights: got %d", w.Code)
	}
}

func TestProbesAndMetrics(t *testing.T) {
	f := &fake{adm: admitted()}
	h := handler(t, f)
	get := func(path string) *httptest.ResponseRecorder {
		return do(h, request{method: "GET", path: path, token: "-"})
	}
	if w := get("/healthz"); w.Code != 200 {
		t.Errorf("healthz: got %d", w.Code)
	}
	f.err = ledger.ErrUnavailable
	if w := get("/readyz"); w.Code != 503 {
		t.Errorf("readyz without a database: got %d", w.Code)
	}
	if w := get("/healthz"); w.Code != 200 {
		t.Errorf("healthz without a database: got %d", w.Code)
	}
	do(h, request{method: "GET", path: admPath})
	get("/no/such/path")
	w := do(h, request{method: "GET", path: "/metrics", token: "Bearer prometheus"})
	text, _ := io.ReadAll(w.Body)
	for _, want := range []string{
		`usaged_http_request_duration_seconds_count{code="200",route="GET /api/v1/admissions/{id}"} 1`,
		`usaged_http_request_duration_seconds_count{code="404",route="other"} 1`,
		`usaged_http_request_duration_seconds_count{code="503",route="GET /readyz"} 1`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// What its plan refused for its wait says so to whoever reads it.
func TestRefusedForItsWait(t *testing.T) {
	adm := queued()
	adm.State, adm.Reason, adm.WaitedFor, adm.MaxWait = quota.Cancelled, quota.WaitedTooLong, quota.ConcurrencyLimit,
		time.Hour
	adm.EndedAt = noon.Add(time.Hour + 2*time.Second)
	got := decode(t, do(handler(t, &fake{adm: adm}), request{method: "GET", path: admPath, token: "Bearer reader"}))
	if got["reason"] != "WaitedTooLong" || got["state"] != "Cancelled" ||
		got["message"] != "it waited 1h0m2s (ConcurrencyLimit), the plan lets work wait 1h0m0s at most" {
		t.Errorf("got %v", got)
	}
}
