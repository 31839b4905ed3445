// SPDX-License-Identifier: Apache-2.0

package localstack

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// tokenLifetime is longer than anybody leaves a stack running: nobody renews the tokens.
const tokenLifetime = 7 * 24 * time.Hour

// Token returns a token of a service account, for the audiences, or for the API server where none is named.
func (c *ControlPlane) Token(ctx context.Context, namespace, account string, audiences ...string) (string, error) {
	clients, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		return "", err
	}
	seconds := int64(tokenLifetime.Seconds())
	request := &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds, Audiences: audiences}}
	request, err = clients.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, request,
		metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("a token of service account %s/%s: %w", namespace, account, err)
	}
	return request.Status.Token, nil
}

// WriteKubeconfig writes one with the rights of a service account in SystemNamespace.
func (c *ControlPlane) WriteKubeconfig(ctx context.Context, account, path string) error {
	token, err := c.Token(ctx, SystemNamespace, account)
	if err != nil {
		return err
	}
	const name = "local"
	return clientcmd.WriteToFile(clientcmdapi.Config{
		CurrentContext: name,
		Contexts: map[string]*clientcmdapi.Context{
			name: {Cluster: name, AuthInfo: name, Namespace: SystemNamespace}},
		Clusters: map[string]*clientcmdapi.Cluster{
			name: {Server: c.Config.Host, CertificateAuthorityData: c.Config.CAData},
		},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{name: {Token: token}},
	}, path)
}
