// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// fieldOwner is the name under which the controllers apply objects.
	fieldOwner = "usage-operator"
	// actor is the name under which the audit log knows the controllers.
	actor = "usage-operator"

	// maxMessage is the longest message that a condition may have.
	maxMessage = 32768
)

// conditions collects what one reconciliation finds out about an object. Times of transitions are kept where nothing
// changed.
type conditions struct {
	list       *[]metav1.Condition
	generation int64
}

func (c conditions) set(kind string, status bool, reason, message string) {
	value := metav1.ConditionFalse
	if status {
		value = metav1.ConditionTrue
	}
	meta.SetStatusCondition(c.list, metav1.Condition{
		Type: kind, Status: value, Reason: reason, Message: message[:min(len(message), maxMessage)],
		ObservedGeneration: c.generation,
	})
}

// unknown says that a condition could not be told, unless the object's current spec has been judged before.
func (c conditions) unknown(kind, message string) {
	if was := meta.FindStatusCondition(*c.list, kind); was != nil && was.ObservedGeneration == c.generation {
		return
	}
	meta.SetStatusCondition(c.list, metav1.Condition{
		Type: kind, Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonProgressing, Message: message,
		ObservedGeneration: c.generation,
	})
}

// sumUp sets Ready: True if all the parts are, else the first that is False says why, and where none is, the first that
// is not known: what could not be told often follows from what is wrong.
func (c conditions) sumUp(ready string, parts ...string) {
	var unknown, wrong *metav1.Condition
	for _, part := range parts {
		got := meta.FindStatusCondition(*c.list, part)
		if got == nil {
			got = &metav1.Condition{Reason: v1alpha1.ReasonProgressing, Message: part + " is not known yet"}
		}
		switch {
		case got.Status == metav1.ConditionTrue:
		case got.Status == metav1.ConditionFalse && wrong == nil:
			wrong = got
		case unknown == nil:
			unknown = got
		}
	}
	if why := cmp.Or(wrong, unknown); why != nil {
		c.set(v1alpha1.ConditionReady, false, why.Reason, why.Message)
	} else {
		c.set(v1alpha1.ConditionReady, true, v1alpha1.ReasonReady, ready)
	}
}

// writeStatus writes an object's status, or returns errStale if the object has been written since it was read: from a
// cache that lags behind our own last write, what that has found out would be taken for not known yet.
func writeStatus(ctx context.Context, c client.Client, before, after client.Object) error {
	err := c.Status().Patch(ctx, after,
		client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), client.FieldOwner(fieldOwner))
	if apierrors.IsConflict(err) {
		return errStale
	}
	return client.IgnoreNotFound(err)
}

// describe is an error's text for a condition: what is wrong, without the object, which needs no telling in its own
// condition.
func describe(err error) string {
	if e, ok := errors.AsType[*quota.Error](err); ok {
		return e.Text
	}
	return err.Error()
}

// syncFailure classifies why the database does not hold what the spec says.
func syncFailure(err error) (reason, message string) {
	if schema, old := errors.AsType[*ledger.SchemaError](err); old {
		return v1alpha1.ReasonDatabaseSchema, schema.Error() + "; tried again by itself"
	}
	if errors.Is(err, ledger.ErrServer) {
		return v1alpha1.ReasonDatabaseUnavailable, ledger.ErrServer.Error() + "; tried again by itself"
	}
	if errors.Is(err, ledger.ErrUnavailable) || errors.Is(err, ledger.ErrOverloaded) {
		// Without the driver's words: a port or a count of connections in it would change the message at each try.
		return v1alpha1.ReasonDatabaseUnavailable, "the database cannot be reached; tried again by itself"
	}
	return v1alpha1.ReasonSyncFailed, describe(err)
}

func timestamp(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	// What the API server stores has whole seconds; anything finer would always differ from it.
	return new(metav1.NewTime(t.UTC().Truncate(time.Second)))
}
