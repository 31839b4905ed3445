// SPDX-License-Identifier: Apache-2.0

// Package crd has the CustomResourceDefinitions as they are installed, for programs that judge a manifest as the API
// server would.
package crd

import _ "embed"

// UsagePlans is the definition of UsagePlan, in YAML.
//
//go:embed bases/usage.cantonesescribe.io_usageplans.yaml
var UsagePlans []byte
