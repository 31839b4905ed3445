// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/loop"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// WatchInterval is how often is asked what has changed, so that whoever watches hears of it within a second of the
	// commit, and of a user who does much at most twice a second.
	WatchInterval = 500 * time.Millisecond
	watchTimeout  = 10 * time.Second
	// pollPart is about how many accounts are asked for at once where more are watched, and mostParts into how many
	// parts they are divided at most: ten thousand at once would keep the database from others for tens of
	// milliseconds. The number of parts is a power of two.
	pollPart, mostParts = 1024, 16
	// alertWindow is how long ago an alert may have been raised that is news: more than a pause of the database.
	alertWindow = 10 * time.Minute
	// keptAlerts are how many alerts wait for who watches slowly.
	keptAlerts = 16
)

// Standing is where a user or a team stands. It is shared by all who watch: nothing of it must be changed.
type Standing struct {
	ledger.Usage

	// Team is nil of a user.
	Team *TeamUsage
}

// Frame is a standing as it is shown. It is made once for all who watch.
type Frame struct {
	// ID is that of all frames that say the same, whenever and wherever they are made.
	ID   string
	Body []byte
}

// Show makes what is shown of a standing and of an alert.
type Show struct {
	Standing func(*Standing) (Frame, error)
	Alert    func(*ledger.Alert) ([]byte, error)
}

// Watcher tells those who watch users and teams where these stand, whenever it has changed: by what anybody commits, by
// what is declared, and by time. One goroutine reads for all of them, in few statements, and only while somebody
// watches. It is safe for concurrent use.
type Watcher struct {
	service *Service
	show    Show
	wake    chan struct{}
	// The watched accounts are divided into parts, each of which is asked for once in a WatchInterval; part was the
	// last one. Only Run knows of them.
	parts, part int

	mu       sync.Mutex
	subjects map[quota.Level]*subject
	// stale are those of the subjects that have to be read.
	stale map[*subject]struct{}
	// accounts are divided as for mostParts, so that those of a part are found without looking at all.
	accounts [mostParts]map[quota.AccountID]*watchedAccount
	// declared stands for all plans and teams as they were declared when it was last asked.
	declared string
}

// watchedAccount is one whose changes move the standing of subjects.
type watchedAccount struct {
	// version is the account's as it was when it was last asked; 0 before.
	version  int64
	subjects map[*subject]struct{}
}

// subject is a user or a team that is watched.
type subject struct {
	of      quota.Level
	watches map[*Watch]struct{}
	// frame is where it stands, with an empty ID before it has been read; err is why it cannot be shown.
	frame Frame
	err   error
	// chain are the accounts that it depends on, none of a user who has no account yet.
	chain []quota.AccountID
	// due is when the standing changes by time.
	due time.Time
	// alerts are the latest, and raised counts all that there were. seen are those that are no news any more.
	alerts [][]byte
	raised int
	seen   []quota.AlertID
}

// Watch is one who watches.
type Watch struct {
	watcher *Watcher
	subject *subject
	changed chan struct{}
	// told is how many alerts of the subject's were told.
	told int
}

// NewWatcher returns one that shows where those stand whom the service knows. It does nothing before Run.
func NewWatcher(service *Service, show Show) *Watcher {
	w := &Watcher{service: service, show: show, wake: make(chan struct{}, 1), parts: 1,
		subjects: map[quota.Level]*subject{}, stale: map[*subject]struct{}{}}
	for i := range w.accounts {
		w.accounts[i] = map[quota.AccountID]*watchedAccount{}
	}
	return w
}

// beside are the watched accounts of those that a given one is asked for with. The end of an id is random.
func (w *Watcher) beside(id quota.AccountID) map[quota.AccountID]*watchedAccount {
	return w.accounts[id[len(id)-1]%mostParts]
}

// Watch begins to watch a user or a team. Changed has a token once it has been read for the first time.
func (w *Watcher) Watch(of quota.Level) *Watch {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.subjects[of]
	if s == nil {
		s = &subject{of: of, watches: map[*Watch]struct{}{}}
		w.subjects[of] = s
		w.stale[s] = struct{}{}
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	watch := &Watch{watcher: w, subject: s, changed: make(chan struct{}, 1), told: s.raised}
	s.watches[watch] = struct{}{}
	if s.frame.ID != "" || s.err != nil {
		watch.changed <- struct{}{}
	}
	return watch
}

// Changed has a token once there is something to look at.
func (x *Watch) Changed() <-chan struct{} { return x.changed }

// Look returns where the subject stands, and the alerts that were raised since the last time. The error is that of
// reading it: whether it is passing is for the caller to say.
func (x *Watch) Look() (frame Frame, alerts [][]byte, err error) {
	x.watcher.mu.Lock()
	defer x.watcher.mu.Unlock()
	s := x.subject
	alerts = slices.Clone(s.alerts[max(0, len(s.alerts)-(s.raised-x.told)):])
	x.told = s.raised
	return s.frame, alerts, s.err
}

// Stop ends watching.
func (x *Watch) Stop() {
	w := x.watcher
	w.mu.Lock()
	defer w.mu.Unlock()
	s := x.subject
	delete(s.watches, x)
	if len(s.watches) == 0 {
		delete(w.subjects, s.of)
		delete(w.stale, s)
		w.dependOn(s, nil)
	}
}

// Watched is how many users and teams are watched.
func (w *Watcher) Watched() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.subjects)
}

// next is when to ask for another part, if anybody watches.
func (w *Watcher) next(polled time.Time) <-chan time.Time {
	if w.Watched() == 0 {
		return nil
	}
	return time.After(time.Until(polled.Add(WatchInterval / time.Duration(w.parts))))
}

// Run reads for those who watch until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	var polled time.Time
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
			// Others who have just come are read together.
			loop.Pause(ctx, time.Millisecond)
		case <-w.next(polled):
			polled = time.Now()
			w.turn(ctx, w.poll)
		}
		w.turn(ctx, w.refresh)
	}
}

func (w *Watcher) turn(ctx context.Context, do func(context.Context) error) {
	turn, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	_ = w.service.failed(ctx, do(turn), "reading where those stand who are watched failed, trying again")
}

// Versions are what is asked for changes.
type Versions struct {
	// Accounts with the version of each when it was last asked, 0 before.
	Accounts []quota.AccountID
	Known    []int64
	// Users have no account yet.
	Users []string
}

// VersionChanges are what has changed.
type VersionChanges struct {
	// Accounts that have another version now.
	Accounts []quota.AccountID
	Versions []int64
	// Users who have an account now.
	Users []string
	// Declared is another one whenever a plan or a team was declared otherwise.
	Declared string
	Now      time.Time
}

// poll finds out whose standing may have changed, of a part of those who are watched. What concerns all of them it
// looks at with one of the parts.
func (w *Watcher) poll(ctx context.Context) error {
	w.mu.Lock()
	var ask Versions
	count := 0
	for _, accounts := range w.accounts {
		count += len(accounts)
	}
	for w.parts = 1; w.parts < mostParts && count >= w.parts*pollPart; {
		w.parts *= 2
	}
	w.part = (w.part + 1) % w.parts
	for i := w.part; i < mostParts; i += w.parts {
		for id, a := range w.accounts[i] {
			ask.Accounts, ask.Known = append(ask.Accounts, id), append(ask.Known, a.version)
		}
	}
	all := w.part == 0
	if all {
		for _, s := range w.subjects {
			if s.of.Kind == quota.LevelUser && len(s.chain) == 0 {
				ask.Users = append(ask.Users, s.of.Name)
			}
		}
	}
	w.mu.Unlock()
	found, err := w.service.store.Changes(ctx, ask)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, id := range found.Accounts {
		if a := w.beside(id)[id]; a != nil {
			a.version = found.Versions[i]
			maps.Copy(w.stale, a.subjects)
		}
	}
	for _, user := range found.Users {
		if s := w.subjects[quota.Level{Kind: quota.LevelUser, Name: user}]; s != nil {
			w.stale[s] = struct{}{}
		}
	}
	again := found.Declared != w.declared
	w.declared = found.Declared
	if !all && !again {
		return nil
	}
	for _, s := range w.subjects {
		if again || !s.due.IsZero() && !found.Now.Before(s.due) {
			w.stale[s] = struct{}{}
		}
	}
	return nil
}

// refresh reads those whose standing may have changed.
func (w *Watcher) refresh(ctx context.Context) error {
	w.mu.Lock()
	var users, teams []*subject
	for s := range w.stale {
		if s.of.Kind == quota.LevelTeam {
			teams = append(teams, s)
		} else {
			users = append(users, s)
		}
	}
	w.mu.Unlock()
	var errs []error
	for chunk := range slices.Chunk(users, standingsAtOnce) {
		errs = append(errs, w.read(ctx, chunk, w.service.userStandings))
	}
	for chunk := range slices.Chunk(teams, standingsAtOnce) {
		errs = append(errs, w.read(ctx, chunk, w.service.teamStandings))
	}
	return errors.Join(errs...)
}

// found is a standing, or why there is none.
type foundStanding struct {
	*Standing

	err error
}

// read reads where some stand, all users or all teams, with their new alerts. If that fails each is read alone: one
// that cannot be read is not the others' concern.
func (w *Watcher) read(
	ctx context.Context, chunk []*subject,
	from func(ctx context.Context, names []string) (map[string]foundStanding, error),
) error {
	names := make([]string, len(chunk))
	for i, s := range chunk {
		names[i] = s.of.Name
	}
	all, err := from(ctx, names)
	if err != nil && len(chunk) > 1 && !errors.Is(err, ledger.ErrUnavailable) {
		var errs []error
		for _, s := range chunk {
			errs = append(errs, w.read(ctx, []*subject{s}, from))
		}
		return errors.Join(errs...)
	}
	if err != nil {
		w.failed(chunk, err)
		return err
	}
	var accounts []quota.AccountID
	for _, f := range all {
		if f.Standing != nil && f.Account.ID != (quota.AccountID{}) {
			accounts = append(accounts, f.Account.ID)
		}
	}
	alerts, err := w.service.store.NewAlerts(ctx, accounts, alertWindow)
	if err != nil {
		w.failed(chunk, err)
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range chunk {
		w.tell(s, all[s.of.Name], alerts)
	}
	return nil
}

// failed tells those who have not seen anything yet that they will not; all others see what they saw, and are read
// again.
func (w *Watcher) failed(chunk []*subject, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range chunk {
		if s.frame.ID == "" {
			s.err = err
			s.signal()
		}
	}
}

// tell takes note of what was read of a subject. The caller holds the lock.
func (w *Watcher) tell(s *subject, f foundStanding, alerts map[quota.AccountID][]ledger.Alert) {
	if w.subjects[s.of] != s {
		return // nobody watches any more
	}
	delete(w.stale, s)
	if f.Standing == nil {
		if s.err = f.err; s.err == nil {
			s.err = quota.NotFound("%s %q", s.of.Kind, s.of.Name)
		}
		s.signal()
		return
	}
	w.dependOn(s, f.Standing)
	frame, err := w.show.Standing(f.Standing)
	moved := frame.ID != s.frame.ID || err != nil
	first := s.frame.ID == ""
	s.frame, s.err = frame, err
	if s.news(alerts[f.Account.ID], w.show.Alert, first) || moved {
		s.signal()
	}
}

// dependOn has changes of the accounts along a standing make the subject stale; of none with nil. The caller holds the
// lock.
func (w *Watcher) dependOn(s *subject, on *Standing) {
	var chain []quota.AccountID
	if s.due = (time.Time{}); on != nil {
		s.due = on.MovesAt()
		for _, a := range append([]*quota.Account{on.Account}, on.Above[:]...) {
			if a == nil || a.ID == (quota.AccountID{}) {
				break
			}
			chain = append(chain, a.ID)
			if end := a.Period.End; end.Before(s.due) {
				s.due = end
			}
		}
	}
	if slices.Equal(chain, s.chain) {
		return
	}
	for _, id := range s.chain {
		accounts := w.beside(id)
		if a := accounts[id]; a != nil {
			delete(a.subjects, s)
			if len(a.subjects) == 0 {
				delete(accounts, id)
			}
		}
	}
	for _, id := range chain {
		accounts := w.beside(id)
		a := accounts[id]
		if a == nil {
			a = &watchedAccount{subjects: map[*subject]struct{}{}}
			accounts[id] = a
		}
		a.subjects[s] = struct{}{}
	}
	s.chain = chain
}

// news takes note of alerts and reports whether there are new ones. What was raised before anybody watched is none.
func (s *subject) news(alerts []ledger.Alert, show func(*ledger.Alert) ([]byte, error), first bool) bool {
	news := false
	for i := range alerts {
		a := &alerts[i]
		if slices.Contains(s.seen, a.ID) {
			continue
		}
		s.seen = append(s.seen, a.ID)
		if len(s.seen) > 4*keptAlerts {
			s.seen = slices.Clone(s.seen[keptAlerts:])
		}
		body, err := show(a)
		if first || err != nil {
			continue
		}
		s.alerts, s.raised, news = append(s.alerts, body), s.raised+1, true
		if len(s.alerts) > keptAlerts {
			s.alerts = slices.Clone(s.alerts[len(s.alerts)-keptAlerts:])
		}
	}
	return news
}

func (s *subject) signal() {
	for watch := range s.watches {
		select {
		case watch.changed <- struct{}{}:
		default:
		}
	}
}

// userStandings reads users; one without an account stands as a new one would, where the options say so.
func (s *Service) userStandings(ctx context.Context, names []string) (map[string]foundStanding, error) {
	all, err := s.UsageOf(ctx, names)
	if err != nil {
		return nil, err
	}
	out := make(map[string]foundStanding, len(names))
	for _, name := range names {
		u, there := all[name]
		switch {
		case there && u.Unreadable != nil:
			out[name] = foundStanding{err: u.Unreadable}
			continue
		case !there:
			if u, err = s.Current(ctx, name); err != nil {
				if quota.ReasonOf(err) == "" {
					return nil, err
				}
				out[name] = foundStanding{err: err}
				continue
			}
		}
		out[name] = foundStanding{Standing: &Standing{Usage: u}}
	}
	return out, nil
}

// teamStandings reads teams, without how many are below them.
func (s *Service) teamStandings(ctx context.Context, names []string) (map[string]foundStanding, error) {
	all, err := s.store.TeamStandings(ctx, names)
	if err != nil {
		return nil, err
	}
	out := make(map[string]foundStanding, len(names))
	for name, u := range rolled(all) {
		if u.Unreadable != nil {
			out[name] = foundStanding{err: u.Unreadable}
			continue
		}
		out[name] = foundStanding{Standing: &Standing{Usage: u.Usage, Team: &u}}
	}
	return out, nil
}

// Work counts what runs and what waits, of everybody.
func (s *Service) Work(ctx context.Context) (Work, error) { return s.store.Work(ctx) }
