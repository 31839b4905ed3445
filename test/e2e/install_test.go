//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var _ = Describe("the installation", func() {
	It("serves HTTPS that the published bundle verifies, and nobody without a token", func(ctx SpecContext) {
		bundle := &corev1.ConfigMap{}
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: systemNamespace, Name: "usage-operator-ca"},
			bundle)).To(Succeed())
		roots := x509.NewCertPool()
		Expect(roots.AppendCertsFromPEM([]byte(bundle.Data["ca.crt"]))).To(BeTrue())
		usaged := "https://" + portForward(ctx, systemNamespace, "usage-operator-usaged", 443)
		get := func(roots *x509.CertPool, path string) (int, error) {
			transport := &http.Transport{TLSClientConfig: &tls.Config{
				RootCAs: roots, ServerName: "usage-operator-usaged." + systemNamespace + ".svc",
				MinVersion: tls.VersionTLS12,
			}}
			defer transport.CloseIdleConnections()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, usaged+path, http.NoBody)
			if err != nil {
				return 0, err
			}
			resp, err := (&http.Client{Transport: transport}).Do(req)
			if err != nil {
				return 0, err
			}
			return resp.StatusCode, resp.Body.Close()
		}
		Expect(get(roots, "/readyz")).To(Equal(http.StatusOK))
		Expect(get(roots, "/api/v1/usage/current?user_id=alice")).To(Equal(http.StatusUnauthorized))
		_, err := get(x509.NewCertPool(), "/readyz")
		Expect(err).To(MatchError(ContainSubstring("unknown authority")))
	}, SpecTimeout(timeout))

	It("has two ready replicas of each program, and usaged no right to what it does not need", func(ctx SpecContext) {
		for _, component := range []string{"manager", "usaged"} {
			Expect(ready(ctx, component)).To(Equal(2), component)
		}
		account := "system:serviceaccount:" + systemNamespace + ":usage-operator-usaged"
		for _, right := range [][]string{{"get", "secrets"}, {"list", "jobs"}, {"get", "usageplans"}} {
			out, err := tryKubectl(ctx, append([]string{"auth", "can-i", "--as", account}, right...)...)
			Expect(err).To(HaveOccurred(), "%v: %s", right, out)
		}
	}, SpecTimeout(timeout))
})
