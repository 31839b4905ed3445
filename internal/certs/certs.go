// SPDX-License-Identifier: Apache-2.0

// Package certs makes and rotates the certificates that the operator's services show inside the cluster, for clusters
// without cert-manager: an authority, a certificate for each service, and the bundle that callers verify them with.
//
// Certificates are made and checked by cert-controller's functions. Its controller is not used: it would list every
// Secret of the namespace, keep the authority's key beside the serving key, and wait for the kubelet to project a
// Secret that has to exist beforehand.
package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/cert-controller/pkg/rotator"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

// Names of the objects in the operator's namespace.
const (
	// AuthoritySecret has the authority's certificate and key; only the manager reads it.
	AuthoritySecret = "usage-operator-ca"
	// BundleConfigMap has under BundleKey the certificates that callers are to trust. It is no secret.
	BundleConfigMap = "usage-operator-ca"
	// BundleKey is the key in BundleConfigMap.
	BundleKey = "ca.crt"
	// WebhookSecret has the manager's certificate, for the admission webhooks and the metrics.
	WebhookSecret = "usage-operator-webhook-cert"
	// UsagedSecret has the certificate of the HTTP service.
	UsagedSecret = "usage-operator-usaged-cert"

	authorityName = "usage-operator-ca"
)

const (
	day = 24 * time.Hour
	// An authority is replaced so early that no certificate outlives the one that signed it.
	authorityValidity, authorityRenewal = 5 * 365 * day, 180 * day
	servingValidity, servingRenewal     = 90 * day, 30 * day
	// clockSkew is how far a caller's clock may be behind.
	clockSkew = time.Hour

	// interval is how often the certificates are looked at, so at most how long a replica shows the previous one.
	interval      = time.Minute
	retryInterval = 2 * time.Second
)

// +kubebuilder:rbac:groups="",namespace=usage-operator-system,resources=secrets;configmaps,verbs=create
// +kubebuilder:rbac:groups="",namespace=usage-operator-system,resources=secrets,resourceNames=usage-operator-ca;usage-operator-webhook-cert;usage-operator-usaged-cert,verbs=get;update
// +kubebuilder:rbac:groups="",namespace=usage-operator-system,resources=configmaps,resourceNames=usage-operator-ca,verbs=get;update
// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=validatingwebhookconfigurations,resourceNames=usage-operator,verbs=get;patch
// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=mutatingwebhookconfigurations,resourceNames=usage-operator-jobs,verbs=get;patch

// Keeper keeps the certificates. Any number of replicas may run one: they agree on what the first has made.
type Keeper struct {
	client    client.Client
	namespace string
	now       func() time.Time
	current   atomic.Pointer[tls.Certificate]
}

// NewKeeper returns a Keeper of the certificates in the namespace. The client must not read from a cache.
func NewKeeper(c client.Client, namespace string) *Keeper {
	return &Keeper{client: c, namespace: namespace, now: time.Now}
}

// GetCertificate is for the tls.Config of the webhooks' server. It shows what was rotated without a restart, and is an
// error until the first certificate is there.
func (k *Keeper) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cert := k.current.Load(); cert != nil {
		return cert, nil
	}
	return nil, errors.New("the certificate has not been made yet")
}

// Run keeps the certificates until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	log := logf.FromContext(ctx).WithName("certificates")
	ctx = logf.IntoContext(ctx, log)
	for {
		next := interval
		if err := k.Ensure(ctx); err != nil && ctx.Err() == nil {
			log.Error(err, "cannot keep the certificates", "retryIn", retryInterval.String())
			next = retryInterval
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(next):
		}
	}
}

// Ensure makes what is missing or about to expire. Trust goes first: nobody is shown a certificate whose authority is
// not in the bundle and in the webhook configurations.
func (k *Keeper) Ensure(ctx context.Context) error {
	// A replica that loses the race reads again what the other one made.
	return retry.OnError(retry.DefaultBackoff, func(err error) bool {
		return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err)
	}, func() error { return k.ensure(ctx) })
}

func (k *Keeper) ensure(ctx context.Context) error {
	authority, err := k.authority(ctx)
	if err != nil {
		return fmt.Errorf("the authority: %w", err)
	}
	bundle, err := k.bundle(ctx, authority.CertPEM)
	if err != nil {
		return fmt.Errorf("the bundle of authorities: %w", err)
	}
	if err := k.injectBundle(ctx, bundle); err != nil {
		return err
	}
	if _, err := k.serving(ctx, authority, UsagedSecret, "usage-operator-usaged"); err != nil {
		return fmt.Errorf("the certificate of usaged: %w", err)
	}
	secret, err := k.serving(ctx, authority, WebhookSecret, "usage-operator-webhook", "usage-operator-metrics")
	if err != nil {
		return fmt.Errorf("the certificate of the webhooks: %w", err)
	}
	cert, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return err
	}
	k.current.Store(&cert)
	return nil
}

// authority returns the authority in force, a new one if need be.
func (k *Keeper) authority(ctx context.Context) (*rotator.KeyPairArtifacts, error) {
	secret, err := k.secret(ctx, AuthoritySecret)
	if err != nil {
		return nil, err
	}
	certPEM, keyPEM := secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]
	if ok, _ := rotator.ValidCert(certPEM, certPEM, keyPEM, authorityName, nil, k.now().Add(authorityRenewal)); !ok {
		made, err := k.maker(authorityName).CreateCACert(k.now().Add(-clockSkew), k.now().Add(authorityValidity))
		if err != nil {
			return nil, err
		}
		return made, k.writeSecret(ctx, secret, made.CertPEM, made.KeyPEM)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	return keyPair(pair, certPEM, keyPEM)
}

// serving returns the Secret with the services' certificate, a new one if need be.
func (k *Keeper) serving(
	ctx context.Context, authority *rotator.KeyPairArtifacts, name string, services ...string,
) (*corev1.Secret, error) {
	secret, err := k.secret(ctx, name)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, service := range services {
		host := service + "." + k.namespace
		names = append(names, host+".svc", host+".svc.cluster.local", host, service)
	}
	valid := true
	for _, dnsName := range names {
		ok, _ := rotator.ValidCert(authority.CertPEM, secret.Data[corev1.TLSCertKey],
			secret.Data[corev1.TLSPrivateKeyKey], dnsName,
			&[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, k.now().Add(servingRenewal))
		valid = valid && ok
	}
	if valid {
		return secret, nil
	}
	certPEM, keyPEM, err := k.maker(names...).CreateCertPEM(authority, k.now().Add(-clockSkew),
		k.now().Add(servingValidity))
	if err != nil {
		return nil, err
	}
	return secret, k.writeSecret(ctx, secret, certPEM, keyPEM)
}

// bundle returns the authorities to trust: the one in force, and before it those that signed what may still be shown.
func (k *Keeper) bundle(ctx context.Context, authority []byte) ([]byte, error) {
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: k.namespace, Name: BundleConfigMap,
		Labels: labels()}}
	err := k.client.Get(ctx, client.ObjectKeyFromObject(config), config)
	if client.IgnoreNotFound(err) != nil {
		return nil, err
	}
	bundle := bytes.Clone(authority)
	for rest := []byte(config.Data[BundleKey]); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		old := pem.EncodeToMemory(block)
		cert, parseErr := x509.ParseCertificate(block.Bytes)
		if parseErr == nil && cert.NotAfter.After(k.now()) && !bytes.Equal(old, authority) {
			bundle = append(bundle, old...)
		}
	}
	if config.Data[BundleKey] == string(bundle) {
		return bundle, nil
	}
	config.Data = map[string]string{BundleKey: string(bundle)}
	if apierrors.IsNotFound(err) {
		return bundle, k.client.Create(ctx, config)
	}
	return bundle, k.client.Update(ctx, config)
}

// secret returns the Secret, an empty one to be created if there is none.
func (k *Keeper) secret(ctx context.Context, name string) (*corev1.Secret, error) {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: k.namespace, Name: name, Labels: labels()},
		Type:       corev1.SecretTypeTLS,
	}
	return secret, client.IgnoreNotFound(k.client.Get(ctx, client.ObjectKeyFromObject(secret), secret))
}

func (k *Keeper) writeSecret(ctx context.Context, secret *corev1.Secret, cert, key []byte) error {
	secret.Data = map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key}
	write := func() error { return k.client.Update(ctx, secret) }
	if secret.ResourceVersion == "" {
		write = func() error { return k.client.Create(ctx, secret) }
	}
	if err := write(); err != nil {
		return err
	}
	logf.FromContext(ctx).Info("made a certificate", "secret", secret.Name)
	return nil
}

// maker returns what makes certificates for the names.
func (k *Keeper) maker(names ...string) *rotator.CertRotator {
	return &rotator.CertRotator{
		CAName: authorityName, CAOrganization: "usage-operator", DNSName: names[0], ExtraDNSNames: names[1:],
		ExtKeyUsages: &[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

func labels() map[string]string {
	return map[string]string{"app.kubernetes.io/name": "usage-operator",
		"app.kubernetes.io/managed-by": "usage-operator"}
}
