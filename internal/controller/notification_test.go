// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/delivery"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres/deliverydb"
)

func newEndpoint(name string, edits ...func(*v1alpha1.NotificationEndpointSpec)) *v1alpha1.NotificationEndpoint {
	n := &v1alpha1.NotificationEndpoint{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Spec.URL = "https://hooks.example/usage"
	for _, edit := range edits {
		edit(&n.Spec)
	}
	return n
}

func signingKey(n byte) []byte {
	return []byte("whsk_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(rune('a'+n)), 32))))
}

// An endpoint is in force with its keys as they are in the Secret, and gone with its object.
func TestNotificationEndpoint(t *testing.T) {
	c := newCluster(t)
	made := newEndpoint("made", func(s *v1alpha1.NotificationEndpointSpec) {
		s.Kinds = []v1alpha1.NotificationKind{"Overdrawn"}
		s.Selector = &v1alpha1.NotificationSelector{Teams: []string{"newsroom"}}
	})
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "keys"},
		Data: map[string][]byte{"one": signingKey(0)}}
	named := newEndpoint("named", func(s *v1alpha1.NotificationEndpointSpec) {
		s.Signing = &v1alpha1.NotificationSigning{SecretRef: &v1alpha1.SecretReference{Name: "keys"}}
	})
	c.create(made, named)
	c.ready(made)
	if k := made.Status.Keys; len(k) != 1 || !strings.HasPrefix(k[0].PublicKey, "whpk_") || made.Status.ID == "" {
		t.Errorf("got %+v", made.Status)
	}
	c.wants(made, v1alpha1.ConditionDelivering, metav1.ConditionTrue, v1alpha1.ReasonDelivering)
	c.wants(named, v1alpha1.ConditionSigningResolved, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound,
		c.namespace+"/keys")
	c.create(secret)
	c.ready(named)

	// A second key signs as well, a wrong one is told of, and what is in force goes on.
	secret.Data["two"] = signingKey(1)
	if err := c.client.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	shows(c, named, func(n *v1alpha1.NotificationEndpoint) int { return len(n.Status.Keys) }, 2)
	secret.Data["two"] = []byte("open sesame")
	if err := c.client.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	c.wants(named, v1alpha1.ConditionSigningResolved, metav1.ConditionFalse, v1alpha1.ReasonKeyInvalid,
		"signing key two", "whsk_")
	if len(named.Status.Keys) != 2 {
		t.Errorf("got %+v", named.Status)
	}

	// What a receiver has said is in the status, until somebody asks for another try.
	_, err := c.store.Pool().Exec(t.Context(), `UPDATE notification_endpoints SET disabled_at = now(),
		disabled_reason = 'the receiver answered 410: it is gone' WHERE name = 'made'`)
	if err != nil {
		t.Fatal(err)
	}
	c.wants(made, v1alpha1.ConditionDelivering, metav1.ConditionFalse, v1alpha1.ReasonDisabled, "410",
		v1alpha1.EnableAnnotation)
	c.change(made, func() { made.Annotations = map[string]string{v1alpha1.EnableAnnotation: "again"} })
	c.wants(made, v1alpha1.ConditionDelivering, metav1.ConditionTrue, v1alpha1.ReasonDelivering)
	c.change(made, func() { made.Spec.Suspended = true })
	c.wants(made, v1alpha1.ConditionDelivering, metav1.ConditionFalse, v1alpha1.ReasonSuspended)

	// What the CRD cannot judge is not in force.
	c.change(made, func() { made.Spec.URL = "https://169.254.169.254/" })
	c.wants(made, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonInvalid, "metadata")

	endpoints := delivery.New(deliverydb.New(c.store.Store), delivery.Options{})
	c.stop()
	for _, n := range []*v1alpha1.NotificationEndpoint{made, named} {
		if err := c.client.Delete(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	c.start() // finds out what has happened meanwhile
	for _, name := range []string{"made", "named"} {
		c.eventually(func() string {
			if _, err := endpoints.Endpoint(t.Context(), "", name); !errors.Is(err, ledger.ErrNotFound) {
				return fmt.Sprintf("%s: %v", name, err)
			}
			return ""
		})
	}
}
