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

// jobMemory is what the controller remembers of Jobs between reconciliations. Methods that begin with note write
// something down, take returns it once, forget lets go of it, and all others only look. Losing the memory costs a write
// and an event too many, and for Jobs that go while the manager is down, the outcome that only their last state told.
type jobMemory struct {
	mu   sync.Mutex
	told map[types.UID]told
	// gone are the Jobs that are there no more and whose end is not settled, as they were last seen.
	gone map[types.UID]sighting
	// stuck are the Jobs that run and seemed stuck when the sweep last came by.
	stuck map[types.UID]quota.Stuck
	// unsettled are the Jobs that have ended and whose admission was live when the sweep last came by.
	unsettled map[types.UID]struct{}
	// unbooked are the Jobs of which the ledger seemed to know less than they show.
	unbooked map[types.UID]struct{}
	// noPod says why no pod has started of Jobs that run. What is said of those that give their slot back for that is
	// in leaving until the ledger has it, and in given then.
	noPod, leaving, given map[types.UID]string
}

// told is what a Job was last told.
type told struct {
	state, reason string
	// message of a Job that the ledger has admitted, by decision seq, and podStarted once one of its pods has since.
	message    string
	podStarted bool
	seq        int64
	// at is when it was told, or admitted.
	at time.Time
}

// sighting is a Job as it was last seen.
type sighting struct {
	completed bool
	container string
	selector  *metav1.LabelSelector
}

func sightOf(job *batchv1.Job) sighting {
	return sighting{completed: completed(job), container: job.Annotations[v1alpha1.ContainerAnnotation],
		selector: job.Spec.Selector}
}

func newJobMemory() *jobMemory {
	return &jobMemory{
		told: map[types.UID]told{}, gone: map[types.UID]sighting{}, stuck: map[types.UID]quota.Stuck{},
		unsettled: map[types.UID]struct{}{}, unbooked: map[types.UID]struct{}{}, noPod: map[types.UID]string{},
		leaving: map[types.UID]string{}, given: map[types.UID]string{},
	}
}

// noteTold notes what state and reason a Job was told.
func (m *jobMemory) noteTold(uid types.UID, state, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told[uid] = told{state: state, reason: reason, at: time.Now()}
}

// wasTold reports whether the state was the last that was written to the Job. The cache may not have it yet.
func (m *jobMemory) wasTold(uid types.UID, state string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.told[uid].state == state
}

// toldRecently reports whether a Job was told the same state and reason so lately that a changed position can wait.
func (m *jobMemory) toldRecently(uid types.UID, state, reason string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.told[uid]
	return ok && t.state == state && t.reason == reason && time.Since(t.at) < refreshInterval
}

// noteStuck notes how a Job that runs looks to the sweep.
func (m *jobMemory) noteStuck(uid types.UID, stuck quota.Stuck) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if stuck == "" {
		delete(m.stuck, uid)
		return
	}
	m.stuck[uid] = stuck
}

// noteUnbooked notes that the ledger seems to know less of a Job than it shows.
func (m *jobMemory) noteUnbooked(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unbooked[uid] = struct{}{}
}

// takeUnbooked reports once what noteUnbooked has noted.
func (m *jobMemory) takeUnbooked(uid types.UID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.unbooked[uid]
	delete(m.unbooked, uid)
	return ok
}

// noteAdmitted notes that the ledger has admitted a Job that runs, when, by which decision, and what it was told.
func (m *jobMemory) noteAdmitted(uid types.UID, message string, at time.Time, seq int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.given, uid)
	was := m.told[uid]
	m.told[uid] = told{
		state: v1alpha1.StateAdmitted, message: message, seq: seq, at: at,
		podStarted: was.state == v1alpha1.StateAdmitted && was.podStarted,
	}
}

// admitted reports whether the ledger has admitted the Job, whatever the Job says itself, and what it was told.
func (m *jobMemory) admitted(uid types.UID) (message string, admitted bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.told[uid]
	return t.message, t.state == v1alpha1.StateAdmitted
}

// admittedAt returns when a Job that runs was admitted, and whether a pod of it has started since.
func (m *jobMemory) admittedAt(uid types.UID) (at time.Time, podStarted bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.told[uid].at, m.told[uid].podStarted
}

// admittedSeq returns the decision that admitted a Job that runs.
func (m *jobMemory) admittedSeq(uid types.UID) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.told[uid].seq
}

// notePodStarted notes that a pod of a Job that runs has started.
func (m *jobMemory) notePodStarted(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.noPod, uid)
	if t, ok := m.told[uid]; ok {
		t.podStarted = true
		m.told[uid] = t
	}
}

// noteNoPod notes why no pod of a Job has started.
func (m *jobMemory) noteNoPod(uid types.UID, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.noPod[uid] = why
}

// noPodReason returns why no pod of a Job has started.
func (m *jobMemory) noPodReason(uid types.UID) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.noPod[uid]
}

// noteGivingBack notes that a Job is about to give its slot back, and what it is told of that.
func (m *jobMemory) noteGivingBack(uid types.UID, message string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leaving[uid] = message
}

// givingBack reports whether a Job is about to give its slot back, and what it is told of that.
func (m *jobMemory) givingBack(uid types.UID) (message string, givingBack bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	message, givingBack = m.leaving[uid]
	return message, givingBack
}

// noteGivenBack notes that a Job has given its slot back, or has not because it was over.
func (m *jobMemory) noteGivenBack(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.given[uid] = m.leaving[uid]
	delete(m.leaving, uid)
	delete(m.noPod, uid)
	delete(m.told, uid)
}

// givenBack returns what a Job is told that has given its slot back and has not been admitted since, else nothing.
func (m *jobMemory) givenBack(uid types.UID) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.given[uid]
}

// withWarnings returns the message of a Job that runs with what is wrong with it.
func (m *jobMemory) withWarnings(uid types.UID, message string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if why := m.noPod[uid]; why != "" {
		message += noPodMark + why
	}
	return message + stuckText(m.stuck[uid])
}

// noteUnsettled notes that a Job has ended and its admission has not.
func (m *jobMemory) noteUnsettled(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unsettled[uid] = struct{}{}
}

// isUnsettled reports whether a Job has ended and its admission, as far as is known, has not.
func (m *jobMemory) isUnsettled(uid types.UID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.unsettled[uid]
	return ok
}

// noteSettled notes that the admission of a Job has ended as well.
func (m *jobMemory) noteSettled(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.unsettled, uid)
}

// noteGone notes that a Job is there no more, and how it was last seen.
func (m *jobMemory) noteGone(job *batchv1.Job) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgetPresent(job.UID)
	m.gone[job.UID] = sightOf(job)
}

// isGone reports whether a Job is there no more and its end not settled.
func (m *jobMemory) isGone(uid types.UID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.gone[uid]
	return ok
}

// lastSeen returns how a Job that is gone was last seen.
func (m *jobMemory) lastSeen(uid types.UID) sighting {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gone[uid]
}

// forget lets go of all that is known of a Job.
func (m *jobMemory) forget(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgetPresent(uid)
	delete(m.gone, uid)
	delete(m.unsettled, uid)
}

// forgetPresent lets go of what is only known of a Job that is there. The caller holds the lock.
func (m *jobMemory) forgetPresent(uid types.UID) {
	delete(m.told, uid)
	delete(m.stuck, uid)
	delete(m.unbooked, uid)
	delete(m.noPod, uid)
	delete(m.leaving, uid)
	delete(m.given, uid)
}
