// SPDX-License-Identifier: Apache-2.0

// Package webhook answers the API server's admission reviews: it refuses early what the CRDs cannot judge, and tells
// people why. Nothing relies on it: what must hold is enforced by policies and controllers.
package webhook
