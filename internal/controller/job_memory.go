// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// jobMemory is what the controller remembers of Jobs between reconciliations. Losing it costs a write and an event too
// many, and for Jobs that go while the manager is down, the outcome that only their last state told.
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
	// noPod says why no pod has started of Jobs that run. What is said of those that give their slot back for that is
	// in leaving until the ledger has it, and in given then.
	noPod, leaving, given map[types.UID]string
}

// written is what a Job was last told.
type written struct {
	state, reason string
	// message of a Job that the ledger has admitted, by decision seq, and begun once one of its pods has started since.
	message string
	begun   bool
	seq     int64
	// at is when it was told, or admitted.
	at time.Time
}

// buried is a Job as it was last seen.
type buried struct {
	completed bool
	container string
	selector  *metav1.LabelSelector
}

func newJobMemory() *jobMemory {
	return &jobMemory{
		written: map[types.UID]written{}, buried: map[types.UID]buried{}, stuck: map[types.UID]quota.Stuck{},
		unpaid: map[types.UID]struct{}{}, lost: map[types.UID]struct{}{}, noPod: map[types.UID]string{},
		leaving: map[types.UID]string{}, given: map[types.UID]string{},
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

func (m *jobMemory) wrote(uid types.UID, state, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.written[uid] = written{state: state, reason: reason, at: time.Now()}
}

// started notes that the ledger has admitted a Job that runs, when, by which decision, and what it was told.
func (m *jobMemory) started(uid types.UID, message string, at time.Time, seq int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.given, uid)
	was := m.written[uid]
	begun := was.state == v1alpha1.StateAdmitted && was.begun
	m.written[uid] = written{state: v1alpha1.StateAdmitted, message: message, begun: begun, seq: seq, at: at}
}

// runs reports whether the ledger has admitted the Job, whatever the Job says itself, and what it was told.
func (m *jobMemory) runs(uid types.UID) (message string, runs bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.written[uid]
	return w.message, w.state == v1alpha1.StateAdmitted
}

// admittedAt returns when a Job that runs was admitted, and whether a pod of it has started since.
func (m *jobMemory) admittedAt(uid types.UID) (at time.Time, begun bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.written[uid].at, m.written[uid].begun
}

// begin notes that a pod of a Job that runs has started.
func (m *jobMemory) begin(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.noPod, uid)
	if w, ok := m.written[uid]; ok {
		w.begun = true
		m.written[uid] = w
	}
}

// lacks notes why no pod of a Job has started.
func (m *jobMemory) lacks(uid types.UID, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.noPod[uid] = why
}

// stay returns the decision that admitted a Job that runs, and why no pod of it has started.
func (m *jobMemory) stay(uid types.UID) (seq int64, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.written[uid].seq, m.noPod[uid]
}

// leave notes that a Job is about to give its slot back, and what it is told of that.
func (m *jobMemory) leave(uid types.UID, message string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leaving[uid] = message
}

func (m *jobMemory) leaves(uid types.UID) (message string, leaves bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	message, leaves = m.leaving[uid]
	return message, leaves
}

// left notes that a Job has given its slot back, or has not because it was over.
func (m *jobMemory) left(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.given[uid] = m.leaving[uid]
	delete(m.leaving, uid)
	delete(m.noPod, uid)
	delete(m.written, uid)
}

func (m *jobMemory) gaveUp(uid types.UID) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.given[uid]
}

// marked returns the message of a Job that runs with what is wrong with it.
func (m *jobMemory) marked(uid types.UID, message string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if why := m.noPod[uid]; why != "" {
		message += noPodMark + why
	}
	return message + stuckText(m.stuck[uid])
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
	m.drop(job.UID)
	m.buried[job.UID] = seen(job)
}

func seen(job *batchv1.Job) buried {
	return buried{completed: completed(job), container: job.Annotations[v1alpha1.ContainerAnnotation],
		selector: job.Spec.Selector}
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
	m.drop(uid)
	delete(m.buried, uid)
	delete(m.unpaid, uid)
}

// drop lets go of what is only known of a Job that is there. The caller holds the lock.
func (m *jobMemory) drop(uid types.UID) {
	delete(m.written, uid)
	delete(m.stuck, uid)
	delete(m.lost, uid)
	delete(m.noPod, uid)
	delete(m.leaving, uid)
	delete(m.given, uid)
}
