// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"
	"errors"
	"runtime"
	"sync"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
)

// standings reads where users stand for callers who each ask for one. What is asked while a read is under way is read
// together by the next, so that many pre-flight checks cost the database few snapshots. No answer is older than its
// question.
type standings struct {
	read func(ctx context.Context, userIDs []string) (map[string]ledger.Usage, error)

	mu      sync.Mutex
	waiting []*question
	// reading says that somebody reads.
	reading bool
}

type question struct {
	userID string
	// usage and err are the answer once answered is closed; usage is nil for a user without an account.
	usage    *ledger.Usage
	err      error
	answered chan struct{}
}

// standingsAtOnce is how many users one read asks for at most.
const standingsAtOnce = 256

// of returns the user's standing, nil without an account. Callers share it: it must not be changed.
func (s *standings) of(ctx context.Context, userID string) (*ledger.Usage, error) {
	q := &question{userID: userID, answered: make(chan struct{})}
	s.mu.Lock()
	s.waiting = append(s.waiting, q)
	if !s.reading {
		s.reading = true
		go s.run()
	}
	s.mu.Unlock()
	select {
	case <-q.answered:
		return q.usage, q.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *standings) run() {
	for {
		// As in the engine's lanes: whoever has just been answered and asks again is in the next read.
		runtime.Gosched()
		s.mu.Lock()
		n := min(len(s.waiting), standingsAtOnce)
		if n == 0 {
			s.reading = false
			s.mu.Unlock()
			return
		}
		questions := s.waiting[:n:n]
		s.waiting = s.waiting[n:]
		s.mu.Unlock()
		s.answer(questions)
	}
}

// answer answers all questions from one snapshot. If that fails each is asked alone: one account that cannot be read is
// not the others' concern.
func (s *standings) answer(questions []*question) {
	// Not the callers' contexts: one of them going away must not fail the others.
	ctx, cancel := context.WithTimeout(context.Background(), ledger.BatchTimeout)
	defer cancel()
	ids := make([]string, len(questions))
	for i, q := range questions {
		ids[i] = q.userID
	}
	all, err := s.read(ctx, ids)
	if err != nil && len(questions) > 1 && !errors.Is(err, ledger.ErrUnavailable) {
		for _, q := range questions {
			s.answer([]*question{q})
		}
		return
	}
	for _, q := range questions {
		if u, ok := all[q.userID]; ok {
			q.usage = &u
		}
		q.err = err
		close(q.answered)
	}
}
