// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// jobMemory is what the controller remembers of Jobs between reconciliations. Losing it costs a write and an event too many, and for Jobs
// that go while the manager is down, the outcome that only their last state told.
type jobMemory struct {
	mu      sync.Mutex
	written map[types.UID]written
	buried  map[types.UID]buried
	// stuck are the Jobs that run and seemed stuck when the sweep last came by.
	stuck map[types.UID]quota.Stuck
	// unpaid are the Jobs that have ended and whose admission was live when the sweep last came by.
	unpaid map[types.UID]struct{}
	// lost are the Jobs of which the ledger seemed to know less than they show.
	lost map[types.UID]struct{}
}

// written is what a Job was last told.
type written struct {
	state, reason string
	// message of a Job that the ledger has admitted.
	message string
	at      time.Time
}

// buried is a Job as it was last seen.
type buried struct {
	completed bool
	container string
}

func newJobMemory() *jobMemory {
	return &jobMemory{
		written: map[types.UID]written{}, buried: map[types.UID]buried{}, stuck: map[types.UID]quota.Stuck{},
		unpaid: map[types.UID]struct{}{}, lost: map[types.UID]struct{}{},
	}
}

// fresh reports whether a Job was told the same state and reason so recently that a changed position can wait.
func (m *jobMemory) fresh(uid types.UID, state, reason string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	w, ok := m.written[uid]
	return ok && w.state == state && w.reason == reason && time.Since(w.at) < refreshInterval
}

// told reports whether the state was the last that was written to the Job. The cache may not have it yet.
func (m *jobMemory) told(uid types.UID, state string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.written[uid].state == state
}

// look notes how a Job that runs looks to the sweep.
func (m *jobMemory) look(uid types.UID, stuck quota.Stuck) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if stuck == "" {
		delete(m.stuck, uid)
		return
	}
	m.stuck[uid] = stuck
}

func (m *jobMemory) looked(uid types.UID) quota.Stuck {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stuck[uid]
}

// lose notes that the ledger seems to know less of a Job than it shows; takeLost says so once.
func (m *jobMemory) lose(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lost[uid] = struct{}{}
}

func (m *jobMemory) takeLost(uid types.UID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.lost[uid]
	delete(m.lost, uid)
	return ok
}

// due reports whether a waiting Job's position may be written again.
func (m *jobMemory) due(uid types.UID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Since(m.written[uid].at) >= refreshInterval
}

func (m *jobMemory) wrote(uid types.UID, state, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.written[uid] = written{state: state, reason: reason, at: time.Now()}
}

// started notes that the ledger has admitted a Job that runs, and what it was told.
func (m *jobMemory) started(uid types.UID, message string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.written[uid] = written{state: v1alpha1.StateAdmitted, message: message, at: time.Now()}
}

// runs reports whether the ledger has admitted the Job, whatever the Job says itself, and what it was told.
func (m *jobMemory) runs(uid types.UID) (message string, runs bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.written[uid]
	return w.message, w.state == v1alpha1.StateAdmitted
}

// owe notes that a Job has ended and its admission has not.
func (m *jobMemory) owe(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unpaid[uid] = struct{}{}
}

func (m *jobMemory) owes(uid types.UID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.unpaid[uid]
	return ok
}

func (m *jobMemory) paid(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.unpaid, uid)
}

func (m *jobMemory) bury(job *batchv1.Job) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.written, job.UID)
	delete(m.stuck, job.UID)
	delete(m.lost, job.UID)
	m.buried[job.UID] = buried{completed: completed(job), container: job.Annotations[v1alpha1.ContainerAnnotation]}
}

func (m *jobMemory) last(uid types.UID) buried {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.buried[uid]
}

// gone reports whether a Job is gone and its end not settled.
func (m *jobMemory) gone(uid types.UID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.buried[uid]
	return ok
}

func (m *jobMemory) forget(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.written, uid)
	delete(m.stuck, uid)
	delete(m.lost, uid)
	delete(m.buried, uid)
	delete(m.unpaid, uid)
}
