// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"
)

// told is a request that a receiver has got.
type told struct {
	header http.Header
	body   []byte
}

// listen starts a receiver of webhooks on this machine, as a customer would have one, and has the platform send it what
// users are told of.
func listen(ctx context.Context, s *story) (receiver *httptest.Server, got <-chan told, err error) {
	requests := make(chan told, 16)
	receiver = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		select {
		case requests <- told{r.Header, body}:
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	_, port, err := net.SplitHostPort(receiver.Listener.Addr().String())
	if err != nil {
		receiver.Close()
		return nil, nil, err
	}
	for _, line := range []string{
		"sed 's/PORT/" + port + "/' hack/demo/endpoint.yaml | kubectl apply -f -",
		"kubectl wait --for=condition=Ready notificationendpoint/demo --timeout=30s",
	} {
		if _, err := s.succeed(ctx, line); err != nil {
			receiver.Close()
			return nil, nil, err
		}
	}
	return receiver, requests, s.set(ctx, "KEY",
		"kubectl get notificationendpoint demo -o jsonpath='{.status.keys[0].publicKey}'")
}

// arrives waits for what the receiver is sent, verifies it by the endpoint's public key and prints it.
func arrives(ctx context.Context, s *story, got <-chan told) error {
	select {
	case t := <-got:
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s.vars["KEY"], "whpk_"))
		if err != nil || len(key) != ed25519.PublicKeySize {
			return fmt.Errorf("%q is no public key: %w", s.vars["KEY"], err)
		}
		signature, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(t.header.Get("Webhook-Signature"), "v1a,"))
		content := t.header.Get("Webhook-Id") + "." + t.header.Get("Webhook-Timestamp") + "." + string(t.body)
		if err != nil || !ed25519.Verify(key, []byte(content), signature) {
			return errors.New("the receiver got something that the endpoint's key has not signed")
		}
		s.out.answer("the receiver got " + string(t.body))
		if err := s.contains("what it got", string(t.body), `"subject":"user/mina"`,
			`"threshold_percent":80`); err != nil {
			return err
		}
		s.out.claim("its signature is that of the endpoint's key")
		return nil
	case <-time.After(10 * time.Second):
		return errors.New("the receiver got nothing within 10 s")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
