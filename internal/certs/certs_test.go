// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
)

const namespace = "usage-operator-system"

func TestMain(m *testing.M) {
	kubetest.Main(m, kubetest.WithManifests("config/rbac", "config/webhook", "config/webhook-job"))
}

// The Keeper has the rights of the manager's service account, no more.
func newKeeper(t *testing.T, now *time.Time) *Keeper {
	t.Helper()
	env := kubetest.Shared(t)
	k := NewKeeper(env.NewClient(t, env.ServiceAccount(t, namespace, "usage-operator-manager")), namespace)
	k.now = func() time.Time { return *now }
	return k
}

// handshake calls the webhooks' server as the API server does, trusting the bundle, and returns the certificate shown.
func handshake(t *testing.T, k *Keeper, bundle []byte, now time.Time) *x509.Certificate {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		t.Fatalf("not a bundle: %q", bundle)
	}
	serverSide, clientSide := net.Pipe()
	server := tls.Server(serverSide, &tls.Config{GetCertificate: k.GetCertificate, MinVersion: tls.VersionTLS12})
	conn := tls.Client(clientSide, &tls.Config{
		RootCAs: roots, ServerName: "usage-operator-webhook." + namespace + ".svc",
		Time: func() time.Time { return now }, MinVersion: tls.VersionTLS12,
	})
	var group errgroup.Group
	group.Go(func() error { return server.HandshakeContext(t.Context()) })
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	return conn.ConnectionState().PeerCertificates[0]
}

func get[T client.Object](t *testing.T, obj T, name string) T {
	t.Helper()
	if err := kubetest.Shared(t).Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name},
		obj); err != nil {
		t.Fatal(err)
	}
	return obj
}

// bundles returns every copy of the bundle that is handed out.
func bundles(t *testing.T) [][]byte {
	t.Helper()
	c := kubetest.Shared(t).Client
	all := [][]byte{[]byte(get(t, &corev1.ConfigMap{}, BundleConfigMap).Data[BundleKey])}
	var validating admissionv1.ValidatingWebhookConfiguration
	var mutating admissionv1.MutatingWebhookConfiguration
	if err := c.Get(t.Context(), client.ObjectKey{Name: validatingConfiguration}, &validating); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), client.ObjectKey{Name: mutatingConfiguration}, &mutating); err != nil {
		t.Fatal(err)
	}
	for _, w := range validating.Webhooks {
		all = append(all, w.ClientConfig.CABundle)
	}
	for _, w := range mutating.Webhooks {
		all = append(all, w.ClientConfig.CABundle)
	}
	return all
}

func TestCertificatesAreMadeSharedAndRotated(t *testing.T) {
	start := time.Now().Truncate(time.Second)
	now := start
	first, second := newKeeper(t, &now), newKeeper(t, &now)
	if _, err := first.GetCertificate(nil); err == nil {
		t.Error("a certificate before one was made")
	}
	// Replicas that start at once agree.
	group, ctx := errgroup.WithContext(t.Context())
	for _, k := range []*Keeper{first, second} {
		group.Go(func() error { return k.Ensure(ctx) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	ensure := func(k *Keeper) {
		t.Helper()
		if err := k.Ensure(context.WithoutCancel(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	shown := make(map[string]*x509.Certificate)
	for _, bundle := range bundles(t) {
		for name, k := range map[string]*Keeper{"first": first, "second": second} {
			shown[name] = handshake(t, k, bundle, now)
		}
	}
	if !shown["first"].Equal(shown["second"]) {
		t.Error("the replicas show different certificates")
	}

	// Nothing changes while all is valid for long.
	versions := func() [4]string {
		return [4]string{
			get(t, &corev1.Secret{}, AuthoritySecret).ResourceVersion,
			get(t, &corev1.Secret{}, WebhookSecret).ResourceVersion,
			get(t, &corev1.Secret{}, UsagedSecret).ResourceVersion,
			get(t, &corev1.ConfigMap{}, BundleConfigMap).ResourceVersion,
		}
	}
	before := versions()
	now = start.Add(servingValidity - servingRenewal - time.Minute)
	ensure(first)
	if after := versions(); after != before {
		t.Errorf("changed from %v to %v before anything was due", before, after)
	}

	// A serving certificate is rotated; the other replica picks it up, and the authority stays.
	now = start.Add(servingValidity - servingRenewal + time.Minute)
	ensure(first)
	ensure(second)
	trusted := bundles(t)[0]
	rotated := handshake(t, first, trusted, now)
	if rotated.Equal(shown["first"]) || !rotated.Equal(handshake(t, second, trusted, now)) {
		t.Error("the certificate was not rotated on both replicas")
	}
	if got := get(t, &corev1.Secret{}, AuthoritySecret).ResourceVersion; got != before[0] {
		t.Error("the authority was replaced with the certificate")
	}

	// A new authority: what the second replica still shows is trusted meanwhile.
	now = start.Add(authorityValidity - authorityRenewal + time.Minute)
	ensure(first)
	for _, bundle := range bundles(t) {
		if got := bytes.Count(bundle, []byte("BEGIN CERTIFICATE")); got != 2 {
			t.Errorf("the bundle holds %d authorities, want the new one and the one before", got)
		}
		handshake(t, first, bundle, now)
	}
	ensure(second)
	if !handshake(t, second, bundles(t)[1], now).Equal(handshake(t, first, bundles(t)[2], now)) {
		t.Error("the replicas show different certificates after the authority was replaced")
	}

	// And the old one goes when it has expired.
	now = start.Add(authorityValidity + time.Minute)
	ensure(second)
	if got := bytes.Count(bundles(t)[0], []byte("BEGIN CERTIFICATE")); got != 1 {
		t.Errorf("the bundle holds %d authorities, want 1", got)
	}

	// What somebody broke is repaired.
	secret := get(t, &corev1.Secret{}, WebhookSecret)
	secret.Data[corev1.TLSCertKey] = []byte("broken")
	if err := kubetest.Shared(t).Client.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	if err := kubetest.Shared(t).Client.Delete(t.Context(), get(t, &corev1.Secret{}, UsagedSecret)); err != nil {
		t.Fatal(err)
	}
	ensure(first)
	handshake(t, first, bundles(t)[3], now)
	cert := get(t, &corev1.Secret{}, UsagedSecret).Data
	pair, err := tls.X509KeyPair(cert[corev1.TLSCertKey], cert[corev1.TLSPrivateKeyKey])
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Leaf.VerifyHostname("usage-operator-usaged." + namespace + ".svc"); err != nil {
		t.Error(err)
	}
}
