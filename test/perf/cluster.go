// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	// audience is what usaged's callers ask their tokens for.
	audience    = "usaged"
	tokenPrefix = "bench-client-"
	bodyLimit   = 1 << 20
)

// cluster answers what usaged asks an API server: who a token belongs to, and whether that one may spend. Its clients
// may spend for every user, as backends may, but for those that are to be limited. So authentication is on as in
// production, and usaged is measured, not an API server.
type cluster struct {
	server           *httptest.Server
	tokens, spenders atomic.Int64
}

func newCluster() *cluster {
	c := &cluster{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /apis/authentication.k8s.io/v1/tokenreviews", c.reviewToken)
	mux.HandleFunc("POST /apis/authorization.k8s.io/v1/subjectaccessreviews", c.reviewAccess)
	c.server = httptest.NewUnstartedServer(mux)
	c.server.EnableHTTP2 = true
	c.server.StartTLS()
	return c
}

func (c *cluster) close() { c.server.Close() }

// writeKubeconfig writes one that leads here.
func (c *cluster) writeKubeconfig(path string) error {
	const name = "bench"
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.server.Certificate().Raw})
	return clientcmd.WriteToFile(clientcmdapi.Config{
		CurrentContext: name,
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: c.server.URL, CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {Token: "usaged"}},
	}, path)
}

func token(client int) string { return fmt.Sprintf("%s%d", tokenPrefix, client) }

func (c *cluster) reviewToken(w http.ResponseWriter, r *http.Request) {
	review := &authenticationv1.TokenReview{}
	if !readReview(w, r, review) {
		return
	}
	c.tokens.Add(1)
	if client, ok := strings.CutPrefix(review.Spec.Token, tokenPrefix); ok {
		review.Status = authenticationv1.TokenReviewStatus{
			Authenticated: true,
			Audiences:     []string{audience},
			User: authenticationv1.UserInfo{
				Username: "system:serviceaccount:bench:client-" + client, UID: "client-" + client,
				Groups: []string{"system:serviceaccounts", "system:serviceaccounts:bench", "system:authenticated"},
			},
		}
	}
	writeReview(w, review)
}

func (c *cluster) reviewAccess(w http.ResponseWriter, r *http.Request) {
	review := &authorizationv1.SubjectAccessReview{}
	if !readReview(w, r, review) {
		return
	}
	c.spenders.Add(1)
	resource := review.Spec.ResourceAttributes
	review.Status.Allowed = resource == nil && review.Spec.NonResourceAttributes.Path == "/metrics" ||
		resource != nil && resource.Verb == "spend" && resource.Resource == "users" &&
			resource.Group == "usage.cantonesescribe.io" &&
			strings.HasPrefix(review.Spec.User, "system:serviceaccount:bench:") &&
			(resource.Name == limitedUser || !strings.Contains(review.Spec.User, ":client-"+limitedClient))
	writeReview(w, review)
}

// readReview decodes JSON and protobuf alike, as an API server does.
func readReview(w http.ResponseWriter, r *http.Request, into runtime.Object) bool {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
	if err == nil {
		_, _, err = scheme.Codecs.UniversalDeserializer().Decode(body, nil, into)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func writeReview(w http.ResponseWriter, review runtime.Object) {
	kinds, _, err := scheme.Scheme.ObjectKinds(review)
	if err != nil || len(kinds) == 0 {
		http.Error(w, fmt.Sprintf("unknown kind %T: %v", review, err), http.StatusInternalServerError)
		return
	}
	review.GetObjectKind().SetGroupVersionKind(kinds[0])
	body, err := json.Marshal(review)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(body)
}
