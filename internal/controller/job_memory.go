// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"iter"
	"maps"
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
// Of a Job that waits and says so it holds nothing, and of one that is neither in the cache nor gone nothing for long.
type jobMemory struct {
	mu   sync.Mutex
	told map[types.UID]told
	// gone are the Jobs that are there no more and whose end is not settled, as they were last seen.
	gone map[types.UID]sighting
	// news are what Jobs are to be told. Those that were woken since they were noted ask anew instead.
	news  map[types.UID]notice
	woken map[types.UID]struct{}
	// expected are the Jobs that are known to be admitted and have not been started.
	expected map[types.UID]struct{}
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
	state, message string
	// podStarted says of a Job that the ledger has admitted, at that time by decision seq, that one of its pods has
	// since.
	podStarted bool
	seq        int64
	at         time.Time
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
		news: map[types.UID]notice{}, woken: map[types.UID]struct{}{}, expected: map[types.UID]struct{}{},
		unsettled: map[types.UID]struct{}{}, unbooked: map[types.UID]struct{}{}, noPod: map[types.UID]string{},
		leaving: map[types.UID]string{}, given: map[types.UID]string{},
	}
}

// noteTold notes what a Job is about to be told, and reports whether it has been told already.
func (m *jobMemory) noteTold(uid types.UID, state, message string) (already bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.told[uid]
	m.told[uid] = told{state: state, message: message}
	return t.state == state && t.message == message
}

// forgetTold lets go of what a Job was last told, or was not told after all.
func (m *jobMemory) forgetTold(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.told, uid)
}

// takeShown reports whether a Job shows what it was last told. Then that need not be remembered any more.
func (m *jobMemory) takeShown(uid types.UID, state, message string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.told[uid]
	if !ok || t.state != state || t.message != message {
		return false
	}
	delete(m.told, uid)
	return true
}

// noteWoken notes that a Job is about to be looked at for a reason of its own.
func (m *jobMemory) noteWoken(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.woken[uid] = struct{}{}
}

// noteNews notes what a Job is to be told.
func (m *jobMemory) noteNews(uid types.UID, n notice) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.news[uid] = n
}

// takeNews returns what a Job is to be told, unless it was woken since: then it is to ask anew.
func (m *jobMemory) takeNews(uid types.UID) (n notice, fresh bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, fresh = m.news[uid]
	_, woken := m.woken[uid]
	delete(m.news, uid)
	delete(m.woken, uid)
	return n, fresh && !woken
}

// noteExpected notes that a Job is known to be admitted and about to be started.
func (m *jobMemory) noteExpected(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expected[uid] = struct{}{}
}

// isExpected reports what noteExpected has noted.
func (m *jobMemory) isExpected(uid types.UID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.expected[uid]
	return ok
}

// forgetExpected notes that the Job was looked at.
func (m *jobMemory) forgetExpected(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.expected, uid)
}

// wasTold reports whether the state was the last that was written to the Job. The cache may not have it yet.
func (m *jobMemory) wasTold(uid types.UID, state string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.told[uid].state == state
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

// all returns the Jobs of which something is remembered, except those that are gone and not settled.
func (m *jobMemory) all() map[types.UID]struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	uids := map[types.UID]struct{}{}
	for _, known := range []iter.Seq[types.UID]{
		maps.Keys(m.told), maps.Keys(m.news), maps.Keys(m.woken), maps.Keys(m.expected), maps.Keys(m.stuck),
		maps.Keys(m.unsettled), maps.Keys(m.unbooked), maps.Keys(m.noPod), maps.Keys(m.leaving), maps.Keys(m.given),
	} {
		for uid := range known {
			if _, gone := m.gone[uid]; !gone {
				uids[uid] = struct{}{}
			}
		}
	}
	return uids
}

// forgetAll lets go of Jobs that nobody can see any more.
func (m *jobMemory) forgetAll(uids map[types.UID]struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for uid := range uids {
		if _, gone := m.gone[uid]; !gone {
			m.forgetPresent(uid)
			delete(m.unsettled, uid)
		}
	}
}

// forgetPresent lets go of what is only known of a Job that is there. The caller holds the lock.
func (m *jobMemory) forgetPresent(uid types.UID) {
	delete(m.told, uid)
	delete(m.news, uid)
	delete(m.expected, uid)
	delete(m.stuck, uid)
	delete(m.unbooked, uid)
	delete(m.noPod, uid)
	delete(m.leaving, uid)
	delete(m.given, uid)
}
