// SPDX-License-Identifier: Apache-2.0

package jobs_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// observer watches the Jobs of a namespace as anybody could. It sees each write, in the order in which it was made.
type observer struct {
	mu      sync.Mutex
	last    map[types.UID]*batchv1.Job
	running map[string]int
	// above are the teams that a user is below, and peak how many ran below each of them at once at most.
	above map[string][]string
	peak  map[string]int
	// most is how many of one user's ran at once at most, and order are each user's Jobs as they started.
	most  int
	order map[string][]types.UID
	// writes are those of what only usage-operator writes.
	writes map[types.UID]int
}

func observe(t *testing.T, w *world, ns string) *observer {
	t.Helper()
	o := &observer{last: map[types.UID]*batchv1.Job{}, running: map[string]int{}, order: map[string][]types.UID{},
		writes: map[types.UID]int{}, above: map[string][]string{}, peak: map[string]int{}}
	w.Follow(t, &batchv1.JobList{}, func(change watch.Event) {
		if job, ok := change.Object.(*batchv1.Job); ok && change.Type != watch.Deleted {
			o.see(job)
		}
	}, client.InNamespace(ns))
	return o
}

func (o *observer) see(job *batchv1.Job) {
	o.mu.Lock()
	defer o.mu.Unlock()
	was := o.last[job.UID]
	o.last[job.UID] = job
	user := job.Labels[v1alpha1.UserLabel]
	ran := was != nil && !*was.Spec.Suspend
	if was != nil && (ran == *job.Spec.Suspend || !maps.Equal(was.Annotations, job.Annotations)) {
		o.writes[job.UID]++
	}
	if !*job.Spec.Suspend && !ran {
		o.running[user]++
		o.most = max(o.most, o.running[user])
		o.order[user] = append(o.order[user], job.UID)
		for _, team := range o.above[user] {
			o.running[team]++
			o.peak[team] = max(o.peak[team], o.running[team])
		}
	}
	if job.Status.CompletionTime != nil && was.Status.CompletionTime == nil {
		o.running[user]--
		for _, team := range o.above[user] {
			o.running[team]--
		}
	}
}

// states counts the Jobs in a state.
func (o *observer) states(state string) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, job := range o.last {
		if job.Annotations[v1alpha1.StateAnnotation] == state {
			n++
		}
	}
	return n
}

// finishAll ends all pods that there are.
func (w *world) finishAll(ctx context.Context, ns string) {
	var pods corev1.PodList
	if w.Client.List(ctx, &pods, client.InNamespace(ns)) != nil {
		return
	}
	for i := range pods.Items {
		if pod := &pods.Items[i]; pod.Status.Phase != corev1.PodSucceeded {
			pod.Status.Phase = corev1.PodSucceeded
			_ = w.Client.Status().Update(ctx, pod) // the next look finds it if it has changed
		}
	}
}

// queueUp creates the nth Job of each user, from one n up to another.
func (w *world) queueUp(t *testing.T, ns string, users []string, from, to int, change ...func(*batchv1.Job)) {
	t.Helper()
	for n := from; n < to; n++ {
		for _, user := range users {
			job := newJob(ns, fmt.Sprintf("%s-%d", user, n),
				append([]func(*batchv1.Job){label(v1alpha1.UserLabel, user)}, change...)...)
			if err := w.Client.Create(t.Context(), job); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// finishUntil has what runs end until so many are settled.
func (w *world) finishUntil(t *testing.T, ns string, seen *observer, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d are settled", n), func(ctx context.Context) bool {
		w.finishAll(ctx, ns)
		return seen.states(v1alpha1.StateSettled) >= n
	})
}

// The manager ends amid a queue, while Jobs end and are created, and another one goes on: each Job runs once, in its
// user's order, never two of a user at once, and is written three times in its life.
func TestTheQueueOutlivesItsManager(t *testing.T) {
	const each = 6
	w := newWorld(t)
	users := []string{"alice", "bob", "carol", "dora"}
	ns := namespace(t, w.Env, nil, users...)
	seen := observe(t, w, ns)
	create := func(from, to int) { t.Helper(); w.queueUp(t, ns, users, from, to) }
	settled := func(n int) { t.Helper(); w.finishUntil(t, ns, seen, n) }
	create(0, each-2)
	eventually(t, "one of each user runs and the others say that they wait", func(context.Context) bool {
		return seen.states(v1alpha1.StateAdmitted) == len(users) &&
			seen.states(v1alpha1.StateQueued) == len(users)*(each-3)
	})
	settled(len(users))
	w.stopManager()
	w.finishAll(t.Context(), ns)
	create(each-2, each)
	w.startManager(t)
	settled(len(users) * each)

	seen.mu.Lock()
	defer seen.mu.Unlock()
	if seen.most != 1 {
		t.Errorf("%d Jobs of one user ran at once", seen.most)
	}
	for user, order := range seen.order {
		var arrived []int64
		for _, uid := range order {
			id, err := convert.UID(uid)
			if err != nil {
				t.Fatal(err)
			}
			adm, err := w.svc.Get(t.Context(), quota.AdmissionID(id))
			if err != nil {
				t.Fatal(err)
			}
			arrived = append(arrived, adm.ArrivedSeq)
			if n := seen.writes[uid]; n > 3 {
				t.Errorf("%s was written %d times", seen.last[uid].Name, n)
			}
		}
		if len(arrived) != each || !slices.IsSorted(arrived) {
			t.Errorf("Jobs of %s started by their arrival: %d, want all %d in order", user, arrived, each)
		}
		if got := w.used(t, user); got != fmt.Sprint(2*each) {
			t.Errorf("%s used %s credits, want %d", user, got, 2*each)
		}
	}
	var events eventsv1.EventList
	if err := w.Client.List(t.Context(), &events, client.InNamespace(ns)); err != nil {
		t.Fatal(err)
	}
	for i := range events.Items {
		if e := &events.Items[i]; e.ReportingController == "usage-operator" {
			t.Errorf("an event is one more write: %s %s", e.Reason, e.Note)
		}
	}
}

// Two hundred Jobs of two teams below a root wait when the manager ends, and go on with another one: each runs once, in
// its user's order, and whoever watches the API server sees no limit exceeded, of a user, a team or the root.
func TestTeamsOutliveTheManager(t *testing.T) {
	const each = 25
	w := newWorld(t)
	users := []string{"alice", "bob", "carol", "dora", "emil", "fay", "gus", "hana"}
	ns := namespace(t, w.Env, nil, users...)
	seen := observe(t, w, ns)
	limits := map[string]int32{"platform": 5, "desk": 3, "sports": 3}
	for i, name := range []string{"platform", "desk", "sports"} {
		if _, err := w.svc.ApplyTeam(t.Context(), metering.Team{
			Team:      quota.Team{Name: name, Caps: quota.Caps{Concurrent: new(quota.AtMost(limits[name]))}},
			ObjectUID: quota.ObjectUID{0x7e, byte(i)}, Root: name == "platform", Zone: "UTC",
		}, "test"); err != nil {
			t.Fatal(err)
		}
	}
	for i, user := range users {
		team := []string{"desk", "sports"}[i%2]
		if err := w.svc.AddMember(t.Context(), team, user, metering.By{Actor: "test"}); err != nil {
			t.Fatal(err)
		}
		seen.above[user] = []string{team, "platform"}
	}
	half := annotate(v1alpha1.AudioDurationAnnotation, "30s")
	create := func(from, to int) { t.Helper(); w.queueUp(t, ns, users, from, to, half) }
	settled := func(n int) { t.Helper(); w.finishUntil(t, ns, seen, n) }
	create(0, each-5)
	settled(len(users))
	w.stopManager()
	w.finishAll(t.Context(), ns) // ends that nobody sees
	create(each-5, each)
	w.startManager(t)
	for n := len(users); n <= len(users)*each; n += len(users) {
		settled(n)
	}

	seen.mu.Lock()
	defer seen.mu.Unlock()
	if seen.most != 1 {
		t.Errorf("%d Jobs of one user ran at once, want 1", seen.most)
	}
	for team, limit := range limits {
		if got := seen.peak[team]; got > int(limit) || got < int(limit)-1 {
			t.Errorf("%d Jobs of %s ran at once at most, the limit is %d", got, team, limit)
		}
	}
	for _, user := range users {
		var arrived []int64
		for _, uid := range seen.order[user] {
			id, err := convert.UID(uid)
			if err != nil {
				t.Fatal(err)
			}
			adm, err := w.svc.Get(t.Context(), quota.AdmissionID(id))
			if err != nil {
				t.Fatal(err)
			}
			arrived = append(arrived, adm.ArrivedSeq)
		}
		if len(arrived) != each || !slices.IsSorted(arrived) {
			t.Errorf("Jobs of %s started by their arrival: %d, want all %d in order", user, arrived, each)
		}
		if got := w.used(t, user); got != "12.5" {
			t.Errorf("%s used %s credits, want 12.5", user, got)
		}
	}
}
