// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// suspendField is how the ownership of spec.suspend is written.
const suspendField = "f:suspend"

// disownTries is how often the ownership is given up again when others' writes have come between.
const disownTries = 5

// disown gives up the ownership of spec.suspend that starting a Job took. Somebody who applies the Job on the server's
// side would meet a conflict otherwise whenever it is applied again with suspend: true.
func (r *jobReconciler) disown(ctx context.Context, job *batchv1.Job) error {
	for range disownTries {
		body, err := withoutOwnership(job.ManagedFields)
		if err != nil || body == nil {
			return err
		}
		target := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: job.Namespace, Name: job.Name}}
		err = r.client.Patch(ctx, target, client.RawPatch(types.JSONPatchType, body), client.FieldOwner(fieldOwner))
		if !apierrors.IsInvalid(err) && !apierrors.IsConflict(err) {
			return client.IgnoreNotFound(err)
		}
		if err := r.live.Get(ctx, client.ObjectKeyFromObject(job), job); err != nil {
			return client.IgnoreNotFound(err)
		}
	}
	return nil // It is a courtesy: whoever meets a conflict has lost nothing.
}

// withoutOwnership returns the patch by which we own spec.suspend no more, or nil where nobody minds that we do.
func withoutOwnership(all []metav1.ManagedFieldsEntry) ([]byte, error) {
	applied := func(f metav1.ManagedFieldsEntry) bool { return f.Operation == metav1.ManagedFieldsOperationApply }
	ours := func(f metav1.ManagedFieldsEntry) bool {
		return f.Manager == fieldOwner && f.Subresource == "" && f.FieldsV1 != nil &&
			strings.Contains(f.FieldsV1.GetRawString(), suspendField)
	}
	i := slices.IndexFunc(all, ours)
	if i < 0 || !slices.ContainsFunc(all, applied) {
		return nil, nil
	}
	rest, err := withoutSuspend(all[i].FieldsV1.GetRawBytes())
	if err != nil {
		return nil, fmt.Errorf("give up the ownership of spec.suspend: %w", err)
	}
	path := fmt.Sprintf("/metadata/managedFields/%d/fieldsV1", i)
	return fmt.Appendf(nil, `[{"op":"test","path":%q,"value":%s},{"op":"replace","path":%q,"value":%s}]`, path,
		all[i].FieldsV1.GetRawString(), path, rest), nil
}

// withoutSuspend takes spec.suspend out of a set of fields.
func withoutSuspend(raw []byte) ([]byte, error) {
	var fields map[string]map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	delete(fields["f:spec"], suspendField)
	if len(fields["f:spec"]) == 0 {
		delete(fields, "f:spec")
	}
	return json.Marshal(fields)
}
