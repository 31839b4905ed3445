// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package localstack

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"
)

// Install applies what kustomize makes of the folder, such as config/default, without what would run in the cluster.
// Webhooks are called at webhookURL, whose certificate is signed by ca.
func (c *ControlPlane) Install(ctx context.Context, folder, webhookURL string, ca []byte) error {
	manifests, err := c.render(ctx, folder, webhookURL, ca)
	if err != nil {
		return err
	}
	return c.apply(ctx, manifests)
}

// render returns what kustomize makes of the folder, changed for programs that run beside the cluster instead of in it:
// no Deployments and Services, and webhooks that are reached on the loopback interface.
func (c *ControlPlane) render(ctx context.Context, folder, webhookURL string, ca []byte) ([]byte, error) {
	out, err := exec.CommandContext(ctx, c.Kubectl(), "kustomize", folder).Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
		}
		return nil, fmt.Errorf("kubectl kustomize %s: %w", folder, err)
	}
	var rendered bytes.Buffer
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(out), len(out)); ; {
		var object unstructured.Unstructured
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return rendered.Bytes(), nil
		}
		if err != nil {
			return nil, fmt.Errorf("what kubectl kustomize %s prints: %w", folder, err)
		}
		switch object.GetKind() {
		case "", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy":
			continue
		case "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration":
			if err := redirectWebhooks(&object, webhookURL, ca); err != nil {
				return nil, err
			}
		}
		text, err := sigsyaml.Marshal(object.Object)
		if err != nil {
			return nil, err
		}
		rendered.WriteString("---\n")
		rendered.Write(text)
	}
}

func redirectWebhooks(object *unstructured.Unstructured, url string, ca []byte) error {
	webhooks, _, err := unstructured.NestedSlice(object.Object, "webhooks")
	if err != nil {
		return err
	}
	for _, entry := range webhooks {
		webhook, ok := entry.(map[string]any)
		if !ok {
			return fmt.Errorf("%s %s: a webhook is a %T, not a map", object.GetKind(), object.GetName(), entry)
		}
		path, _, err := unstructured.NestedString(webhook, "clientConfig", "service", "path")
		if err != nil {
			return err
		}
		webhook["clientConfig"] = map[string]any{"url": url + path, "caBundle": base64.StdEncoding.EncodeToString(ca)}
	}
	return unstructured.SetNestedSlice(object.Object, webhooks, "webhooks")
}

// apply installs the objects the way a person would.
func (c *ControlPlane) apply(ctx context.Context, manifests []byte) error {
	cmd := exec.CommandContext(ctx, c.Kubectl(), "--kubeconfig="+c.Kubeconfig, "apply", "--server-side", "--filename=-")
	cmd.Stdin = bytes.NewReader(manifests)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl apply: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}
