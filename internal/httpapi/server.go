// SPDX-License-Identifier: Apache-2.0

// Package httpapi is the HTTP face of the service: it decodes, authenticates, asks metering and encodes. The contract
// is api/openapi/openapi.yaml, from which the routing and the types are generated.
package httpapi

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/apipage"
	"github.com/cantonesescribe/usage-operator/internal/clusters"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/queue"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/telemetry"
)

// What handlers ask, an interface for each tag of the contract and one for tickets. *metering.Service is all of Usage,
// Admissions, Tickets and Events.

// Standings say where users stand now, or stood up to maxAge ago, and what would become of a request then.
type Standings interface {
	Check(
		ctx context.Context, userID string, req quota.Request, maxAge time.Duration,
	) (metering.CheckResult, error)
	Recent(ctx context.Context, userID string, maxAge time.Duration) (ledger.Usage, error)
	Current(ctx context.Context, userID string) (ledger.Usage, error)
}

// Usage says where users stand and what they may do.
type Usage interface {
	Standings
	Plans(ctx context.Context) ([]*metering.Plan, error)
	Upgrade(ctx context.Context, on quota.Chain, now time.Time) *quota.Plan
	AcknowledgeAlert(ctx context.Context, id quota.AlertID, by string) error
	Account(ctx context.Context, userID string, anew bool) (quota.AccountID, error)
}

// Admissions are what holds a slot or waits for one.
type Admissions interface {
	Admit(ctx context.Context, req metering.AdmitRequest) (metering.AdmitResult, error)
	Heartbeat(ctx context.Context, account quota.AccountID, id quota.AdmissionID) (*ledger.Admission, error)
	Complete(
		ctx context.Context, account quota.AccountID, id quota.AdmissionID, actual quota.Credits,
	) (*ledger.Admission, error)
	Release(ctx context.Context, account quota.AccountID, id quota.AdmissionID) (*ledger.Admission, error)
	Get(ctx context.Context, id quota.AdmissionID) (*ledger.Admission, error)
	Wait(ctx context.Context, id quota.AdmissionID, until time.Time) (*ledger.Admission, error)
}

// Interventions are made by who does not hold an admission; *metering.Service makes them.
type Interventions interface {
	ForceRelease(
		ctx context.Context, account quota.AccountID, id quota.AdmissionID, reason, actor string,
	) (*ledger.Admission, error)
}

// Tickets stand in for admissions while the database is away.
type Tickets interface {
	VerifyTicket(ctx context.Context, token string) (*metering.Ticket, bool, error)
	TicketAdmission(t *metering.Ticket) *ledger.Admission
	GetTicket(ctx context.Context, t *metering.Ticket) (*ledger.Admission, error)
	CompleteTicket(ctx context.Context, t *metering.Ticket, actual quota.Credits) (*ledger.Admission, error)
	ReleaseTicket(ctx context.Context, t *metering.Ticket) (*ledger.Admission, error)
}

// Events are what is recorded without an admission.
type Events interface {
	RecordAll(ctx context.Context, reqs []metering.RecordRequest) ([]metering.RecordResult, []error)
	Event(ctx context.Context, id quota.EventID) (*ledger.Event, error)
	Reverse(ctx context.Context, req metering.ReverseRequest) (metering.RecordResult, error)
	Adjust(ctx context.Context, req metering.AdjustRequest) (metering.RecordResult, error)
}

// History reads closed periods, and sums them up; *reports.Service is one.
type History interface {
	Period(ctx context.Context, userID string, period *int64) (reports.HistoryPeriod, time.Time, error)
	Stats(ctx context.Context, userID string, months int) (reports.Stats, error)
	History(ctx context.Context, userID string, before int64, limit int) (reports.History, error)
}

// Analytics reads sums of what was used; *reports.Service is one.
type Analytics interface {
	Analytics(ctx context.Context, userID string, by reports.By, span reports.Span) (reports.Analytics, error)
	Activity(ctx context.Context, userID string, span reports.Span) (reports.Activity, error)
	Engagement(ctx context.Context, userID string) (reports.Engagement, error)
	Totals(ctx context.Context, by reports.By, span reports.Span) (reports.Totals, error)
	TotalsRows(ctx context.Context, span reports.Span) (time.Time, iter.Seq2[[]reports.Total, error], error)
	TeamAnalytics(ctx context.Context, team string, by reports.By, span reports.Span) (reports.Analytics, error)
}

// Largest lists the largest pieces of work; *reports.Service does.
type Largest interface {
	Largest(ctx context.Context, userID string, span reports.Span, limit int) (reports.Largest, error)
	TeamLargest(ctx context.Context, team string, span reports.Span, limit int) (reports.Largest, error)
}

// Operators tells what all users come to; *reports.Service does.
type Operators interface {
	Utilisation(ctx context.Context, span reports.Span) (reports.Utilisation, error)
	Margins(ctx context.Context, by reports.By, span reports.Span) (reports.Margins, error)
	Spenders(ctx context.Context, q reports.SpendersQuery, limit int) (reports.Spenders, error)
	SpenderRows(
		ctx context.Context, q reports.SpendersQuery,
	) (reports.Spenders, iter.Seq2[[]reports.Spender, error], error)
	Cohorts(ctx context.Context, from, to reports.Day) (reports.Cohorts, error)
	Work(ctx context.Context, by reports.By, span reports.Span) (reports.Work, error)
}

// Forecasts says what is to be expected; *reports.Service is one.
type Forecasts interface {
	Forecast(ctx context.Context, userID string) (reports.Forecast, error)
	TeamForecast(ctx context.Context, team string) (reports.Forecast, error)
	TotalForecast(ctx context.Context, plan string, ahead int) (reports.TotalForecast, error)
}

// Simulations try plans on what was used; *reports.Service does.
type Simulations interface {
	Simulate(ctx context.Context, plan *quota.Plan, of string, most int64) (reports.Simulated, error)
}

// Advice says what would be better; *reports.Service does.
type Advice interface {
	Advice(ctx context.Context, userID string, offers []*quota.Plan) (reports.Advice, error)
	PlansAdvice(ctx context.Context) (reports.PlansAdvice, error)
	Churn(ctx context.Context, userID string) (reports.Churn, error)
}

// Users are those who have an account; *metering.Service is one.
type Users interface {
	RegisterUser(ctx context.Context, userID, plan, zone string, by metering.By) (created bool, err error)
	ChangeUser(ctx context.Context, userID string, change metering.UserChange, by metering.By) error
	GrantCredits(ctx context.Context, userID, name string, g metering.Grant, by metering.By) (given bool, err error)
	ResetUser(ctx context.Context, userID string, by metering.By) (periods int, err error)
}

// Search finds what there is; *reports.Service is one.
type Search interface {
	Users(ctx context.Context, prefix, after string, limit int) (users []reports.User, more bool, err error)
	User(ctx context.Context, userID string) (reports.User, error)
	Admissions(
		ctx context.Context, userID string, f reports.AdmissionFilter, before int64, limit int,
	) (page []*ledger.Admission, next int64, err error)
	StuckAdmissions(
		ctx context.Context, userID string, behind reports.Place, limit int,
	) (page []*ledger.Admission, next reports.Place, err error)
	Events(
		ctx context.Context, userID string, period *int64, behind *reports.EventPlace, limit int,
	) (reports.EventPage, error)
	Audit(ctx context.Context, f reports.AuditFilter, before int64, limit int) (reports.AuditPage, error)
}

// Resets tells whose periods end when, and what the resets did; *reports.Service does.
type Resets interface {
	Resets(
		ctx context.Context, f reports.ResetFilter, behind reports.Place, limit int,
	) (reports.ResetPage, error)
	ResetRuns(
		ctx context.Context, plan string, before reports.Place, limit int,
	) (runs []reports.ResetRun, next reports.Place, err error)
}

// Alerts read what users and teams were told of; *reports.Service is one.
type Alerts interface {
	Alerts(
		ctx context.Context, of quota.Level, before quota.AlertID, unread bool, limit int,
	) (reports.AlertPage, error)
	Alert(ctx context.Context, id quota.AlertID) (ledger.Alert, error)
}

// Teams are what is above users; *metering.Service is one.
type Teams interface {
	TeamUsage(ctx context.Context, names []string) (map[string]metering.TeamUsage, error)
	AddMember(ctx context.Context, team, userID string, by metering.By) error
	RemoveMember(ctx context.Context, team, userID string, by metering.By) error
}

// TeamReports read what teams have used, and who is in them; *reports.Service is one.
type TeamReports interface {
	TeamNames(ctx context.Context, after string, limit int) (names []string, more bool, err error)
	TeamPeriod(
		ctx context.Context, team string, period *int64, after quota.AccountID, limit int,
	) (reports.TeamPeriod, error)
	TeamHistory(ctx context.Context, team string, before int64, limit int) (reports.TeamHistory, error)
	TeamMembers(ctx context.Context, team string, after quota.AccountID, limit int) (reports.Members, error)
}

// Queue shows who waits for what; *queue.Service is one.
type Queue interface {
	PlaceOf(ctx context.Context, adm *ledger.Admission) (*queue.Place, error)
	List(ctx context.Context, f queue.Filter, after queue.Spot, limit int) (queue.Page, error)
}

// Leases makes and checks lease tokens; *access.Signer is one.
type Leases interface {
	Lease(ctx context.Context, account quota.AccountID, admission quota.AdmissionID) (string, error)
	VerifyLease(
		ctx context.Context, token string, admission quota.AdmissionID,
	) (account quota.AccountID, ok bool, err error)
}

// Options of a handler. All but Browsers and Limits are required.
type Options struct {
	Usage       Usage
	Admissions  Admissions
	Intervene   Interventions
	Tickets     Tickets
	Events      Events
	History     History
	Analytics   Analytics
	Largest     Largest
	Operators   Operators
	Forecasts   Forecasts
	Simulations Simulations
	Advice      Advice
	// ReadPlan judges the manifest of a UsagePlan as the API server would, and says what is wrong with it.
	ReadPlan    func(ctx context.Context, manifest []byte) (*quota.Plan, error)
	Alerts      Alerts
	Users       Users
	Search      Search
	Resets      Resets
	Teams       Teams
	TeamReports TeamReports
	// Notifications and Deliveries are where alerts are sent to and what is sent.
	Notifications Notifications
	Deliveries    Deliveries
	Queue         Queue
	Leases        Leases
	Auth          *access.Auth
	Log           *slog.Logger
	// Database fails while the database does not answer.
	Database func(ctx context.Context) error
	// Registry is shown under /metrics to whoever may get that, and gets the handler's own metrics.
	Registry *prometheus.Registry
	// Watch begins to watch a user or a team.
	Watch func(of quota.Level) Watching
	// Work counts what runs and what waits, of everybody.
	Work func(ctx context.Context) (metering.Work, error)
	// Gauges are what everybody has used today, and what work came to lately.
	Gauges func(ctx context.Context) (metering.Gauge, error)
	// Clusters are those that share the ledger, the first one first.
	Clusters func(ctx context.Context) ([]clusters.Cluster, error)
	// Streams bound the answers that go on.
	Streams StreamLimits
	// Replica is the name under which the process is known.
	Replica string
	// Pages are further routes, by pattern: those of another face.
	Pages map[string]http.Handler
	// Browsers lets pages of other origins call; nil lets none.
	Browsers *Browsers
	// Limits are those of calls. Without them there are only those of the plans.
	Limits *RateLimiter
	// PublicPlans lets whoever asks see the plans on offer, without saying who it is.
	PublicPlans bool
	// Draining is done when the process is about to end: the service is no longer ready, and nobody is kept waiting.
	Draining context.Context //nolint:containedctx // it is about the process, not about a call
	// Ongoing has the answers that are still written after their handler has returned, so that the server does not know
	// of them: streams. They end once Draining is done. It may be waited for once the server has shut down.
	Ongoing *sync.WaitGroup
}

type server struct {
	usage       Usage
	admissions  Admissions
	intervene   Interventions
	tickets     Tickets
	events      Events
	history     History
	analytics   Analytics
	largest     Largest
	operators   Operators
	forecasts   Forecasts
	simulations Simulations
	advice      Advice
	readPlan    func(ctx context.Context, manifest []byte) (*quota.Plan, error)
	alerts      Alerts
	users       Users
	search      Search
	resets      Resets
	teams       Teams
	teamReports TeamReports

	notifications Notifications
	deliveries    Deliveries

	queue       Queue
	leases      Leases
	auth        *access.Auth
	limits      *RateLimiter
	watch       func(of quota.Level) Watching
	clusters    func(ctx context.Context) ([]clusters.Cluster, error)
	open        *openStreams
	live        *live
	publicPlans bool
	log         *slog.Logger
	draining    context.Context //nolint:containedctx // see Options
	ongoing     *sync.WaitGroup
}

var _ StrictServerInterface = (*server)(nil)

// New returns the handler of everything that the service answers.
func New(opts Options) http.Handler {
	s := &server{usage: opts.Usage, admissions: opts.Admissions, tickets: opts.Tickets, events: opts.Events,
		intervene: opts.Intervene, notifications: opts.Notifications, deliveries: opts.Deliveries,
		history: opts.History, analytics: opts.Analytics, largest: opts.Largest, operators: opts.Operators,
		forecasts: opts.Forecasts, simulations: opts.Simulations, advice: opts.Advice, readPlan: opts.ReadPlan,
		alerts: opts.Alerts, users: opts.Users, search: opts.Search, resets: opts.Resets,
		publicPlans: opts.PublicPlans, teams: opts.Teams, teamReports: opts.TeamReports, queue: opts.Queue,
		leases: opts.Leases, auth: opts.Auth, limits: opts.Limits, log: opts.Log, draining: opts.Draining,
		ongoing: cmp.Or(opts.Ongoing, new(sync.WaitGroup))}
	if s.limits == nil {
		s.limits = NewRateLimiter(RateLimits{}, opts.Registry)
	}
	s.watch, s.clusters, s.open = opts.Watch, opts.Clusters, newOpenStreams(opts.Streams, opts.Registry)
	s.live = newLive(opts.Replica, opts.Work, opts.Gauges, s.open, opts.Registry)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.Handle("GET /readyz", telemetry.Readiness(
		telemetry.Check{Name: "serving", Ask: s.serving},
		telemetry.Check{Name: "database", Ask: opts.Database, Once: true},
	))
	mux.Handle("GET /metrics",
		s.mayScrape(promhttp.HandlerFor(opts.Registry, promhttp.HandlerOpts{Registry: opts.Registry})))
	pages, err := apipage.Handlers()
	if err != nil {
		panic(err) // the document is part of the program, and a test reads it
	}
	for _, routes := range []map[string]http.Handler{pages, opts.Pages} {
		for pattern, page := range routes {
			mux.Handle(pattern, page)
		}
	}
	mux.HandleFunc("/", s.unknown(mux))

	undecodable := func(w http.ResponseWriter, r *http.Request, err error) { s.fail(w, r, undecodable(err)) }
	HandlerWithOptions(
		NewStrictHandlerWithOptions(s, nil,
			StrictHTTPServerOptions{RequestErrorHandlerFunc: undecodable, ResponseErrorHandlerFunc: s.fail}),
		StdHTTPServerOptions{BaseRouter: mux, Middlewares: []MiddlewareFunc{s.authenticated},
			ErrorHandlerFunc: undecodable},
	)
	return measured(opts.Browsers.before(mux), &s.live.inFlight, opts.Registry)
}

// authenticated stands before every operation of the contract: it identifies the caller, refuses one call too many
// and a lease or a ticket where the operation takes none, and reads the body within its bounds.
func (s *server) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		op := byPattern[r.Pattern]
		if s.publicPlans && op.also.has(everybody) && r.Header.Get("Authorization") == "" {
			if err := checkQuery(r, op); err != nil {
				s.fail(w, r, err)
				return
			}
			next.ServeHTTP(w, r)
			return
		}
		c, err := s.identified(w, r)
		switch {
		case err != nil:
		case c.user == nil && !op.also.has(holder):
			err = unauthorized("a lease or a ticket is good for its admission only; this call needs a bearer token")
		default:
			c.operation = op
			if op.streams() {
				c.request = r
			}
			if err = mayPortal(c.user, op); err == nil {
				err = checkQuery(r, op)
			}
			if err == nil {
				err = readBody(w, r, op)
			}
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), callerKey{}, c))
		if polled[op.id] {
			serveTagged(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// serving fails once the process is about to end.
func (s *server) serving(context.Context) error {
	if s.draining.Err() != nil {
		return errors.New("shutting down")
	}
	return nil
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}

// unknown answers what no route matches: 405 where another method would, else 404.
func (s *server) unknown(mux *http.ServeMux) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var allowed []string
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch,
			http.MethodDelete} {
			probe := *r
			probe.Method = method
			if _, pattern := mux.Handler(&probe); strings.HasPrefix(pattern, method) {
				allowed = append(allowed, method)
			}
		}
		if len(allowed) == 0 || slices.Contains(allowed, r.Method) {
			s.fail(w, r, problem(http.StatusNotFound, "not-found", "there is nothing at %s", r.URL.Path))
			return
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		s.fail(w, r, problem(http.StatusMethodNotAllowed, "method-not-allowed", "%s is not allowed here, only %s",
			r.Method, strings.Join(allowed, ", ")))
	}
}
