// SPDX-License-Identifier: Apache-2.0

// Package openapi is the HTTP contract of usaged, as it is written.
package openapi

import _ "embed"

//go:embed openapi.yaml
var document string

// Document returns the contract, OpenAPI 3.1 in YAML.
func Document() string { return document }
