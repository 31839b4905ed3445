// SPDX-License-Identifier: Apache-2.0

package kubetest

import "k8s.io/apimachinery/pkg/runtime"

// Option changes what Main or Start brings up. Paths are relative to the repository's root.
type Option func(*options)

type options struct {
	scheme                  []func(*runtime.Scheme) error
	webhooks                []string
	manifests               []string
	serviceAccountAdmission bool
	controllerManager       bool
}

// WithScheme adds further types to those that Env.Client knows (Kubernetes' own and this project's).
func WithScheme(add ...func(*runtime.Scheme) error) Option {
	return func(o *options) { o.scheme = append(o.scheme, add...) }
}

// WithWebhooks installs the webhook configurations found in the files or folders, redirected to the address and
// certificates in Env.Webhooks, where the test's manager has to serve them.
func WithWebhooks(paths ...string) Option {
	return func(o *options) { o.webhooks = append(o.webhooks, paths...) }
}

// WithManifests applies the files or folders by kubectl once the CRDs are there, a folder with a kustomization.yaml as
// such.
func WithManifests(paths ...string) Option {
	return func(o *options) { o.manifests = append(o.manifests, paths...) }
}

// WithServiceAccountAdmission turns the admission plug-in on that gives pods their service account. A pod whose service
// account does not exist is refused then, as in a real cluster.
func WithServiceAccountAdmission() Option {
	return func(o *options) { o.serviceAccountAdmission = true }
}

// WithControllerManager runs a kube-controller-manager too, so that Jobs and CronJobs make pods, owners' deletions
// reach what they own, and namespaces go away. There is no scheduler and no node: pods stay pending until a test says
// otherwise.
func WithControllerManager() Option {
	return func(o *options) { o.controllerManager = true }
}
