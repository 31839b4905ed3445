// SPDX-License-Identifier: Apache-2.0

package kubetest

import (
	"context"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	retry "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Follow has each change of the objects of the list's kind seen from now on, in the order in which they are made, until
// the test ends. A busy API server ends watches: then it goes on from where it was, and fails the test if that is not
// there any more.
func (e *Env) Follow(tb testing.TB, list client.ObjectList, see func(watch.Event), opts ...client.ListOption) {
	tb.Helper()
	if err := e.Client.List(tb.Context(), list, append(opts, client.Limit(1))...); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	changes, err := retry.NewRetryWatcherWithContext(ctx, list.GetResourceVersion(), &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, raw metav1.ListOptions) (watch.Interface, error) {
			return e.Client.Watch(ctx, list, append(opts, &client.ListOptions{Raw: &raw})...)
		}})
	if err != nil {
		cancel()
		tb.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for change := range changes.ResultChan() {
			if change.Type == watch.Error {
				tb.Errorf("kubetest: changes were missed: %v", apierrors.FromObject(change.Object))
				return
			}
			see(change)
		}
		if ctx.Err() == nil {
			tb.Error("kubetest: nobody follows the changes any more")
		}
	}()
	tb.Cleanup(func() {
		cancel()
		<-done
	})
}
