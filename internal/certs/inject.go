// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"fmt"

	"github.com/open-policy-agent/cert-controller/pkg/rotator"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The webhook configurations of config/webhook and config/webhook-job.
const (
	validatingConfiguration = "usage-operator"
	mutatingConfiguration   = "usage-operator-jobs"
)

// injectBundle tells the API server whom to trust. A configuration that is not installed needs nothing.
func (k *Keeper) injectBundle(ctx context.Context, bundle []byte) error {
	validating := &admissionv1.ValidatingWebhookConfiguration{}
	err := k.inject(ctx, validatingConfiguration, validating, bundle, func() []*admissionv1.WebhookClientConfig {
		configs := make([]*admissionv1.WebhookClientConfig, len(validating.Webhooks))
		for i := range validating.Webhooks {
			configs[i] = &validating.Webhooks[i].ClientConfig
		}
		return configs
	})
	if err != nil {
		return err
	}
	mutating := &admissionv1.MutatingWebhookConfiguration{}
	return k.inject(ctx, mutatingConfiguration, mutating, bundle, func() []*admissionv1.WebhookClientConfig {
		configs := make([]*admissionv1.WebhookClientConfig, len(mutating.Webhooks))
		for i := range mutating.Webhooks {
			configs[i] = &mutating.Webhooks[i].ClientConfig
		}
		return configs
	})
}

// inject writes the bundle into the clientConfigs of obj, which is read by name first.
func (k *Keeper) inject(
	ctx context.Context, name string, obj client.Object, bundle []byte,
	clientConfigs func() []*admissionv1.WebhookClientConfig,
) error {
	if err := k.client.Get(ctx, client.ObjectKey{Name: name}, obj); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("webhook configuration %s: %w", name, err)
	}
	before := obj.DeepCopyObject().(client.Object) //nolint:forcetypeassert // a copy of an Object is one
	changed := false
	for _, config := range clientConfigs() {
		if !bytes.Equal(config.CABundle, bundle) {
			config.CABundle, changed = bundle, true
		}
	}
	if !changed {
		return nil
	}
	// A list is patched as a whole, so somebody else's change since it was read must make it fail.
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := k.client.Patch(ctx, obj, patch, client.FieldOwner("usage-operator-certificates")); err != nil {
		return fmt.Errorf("webhook configuration %s: %w", name, err)
	}
	return nil
}

// keyPair is the authority in the form in which the library signs with it.
func keyPair(pair tls.Certificate, certPEM, keyPEM []byte) (*rotator.KeyPairArtifacts, error) {
	key, ok := pair.PrivateKey.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key in Secret %s is a %T, not an RSA key: delete the Secret to have a new one made",
			AuthoritySecret, pair.PrivateKey)
	}
	return &rotator.KeyPairArtifacts{Cert: pair.Leaf, Key: key, CertPEM: certPEM, KeyPEM: keyPEM}, nil
}
