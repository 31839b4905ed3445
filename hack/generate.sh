#!/bin/sh
# generate.sh: make everything in the repository that is generated. Each section runs when its input exists. The tools are
# pinned in hack/tools/go.mod and built on the first use.
set -eu
cd "$(dirname "$0")/.."

# The tools are told apart from what they are run on: neither a GOFLAGS with -mod=mod or -modfile nor a workspace around
# the repository may change which version of a tool is taken, or its go.mod.
tool() { GOFLAGS=-mod=readonly GOWORK=off go -C hack/tools tool -n "$1"; }

header=hack/boilerplate.go.txt
exists() { [ -n "$(find "$1" -name '*.go' ! -name '*_test.go' 2>/dev/null | head -n 1)" ]; }

# Kubernetes: deep copies, apply configurations, CRDs, and from the markers in the code the rights and the webhooks.
controller_gen=$(tool controller-gen)
if exists api/v1alpha1; then
  "$controller_gen" object:headerFile=$header paths=./api/v1alpha1
  # What is generated no longer must not stay.
  rm -rf api/v1alpha1/applyconfiguration
  "$controller_gen" applyconfiguration:headerFile=$header paths=./api/v1alpha1
  "$controller_gen" crd paths=./api/v1alpha1 output:crd:dir=config/crd/bases
fi
if exists internal/controller; then
  "$controller_gen" rbac:roleName=usage-operator-manager paths=./internal/controller/... output:rbac:dir=config/rbac
fi
if exists internal/webhook; then
  "$controller_gen" webhook paths=./internal/webhook/... output:webhook:dir=config/webhook
fi

# PostgreSQL: Go from the queries and migrations.
if [ -e internal/postgres/sqlc.yaml ]; then
  (cd internal/postgres && "$(tool sqlc)" generate)
fi

# HTTP: the server and the client from the contract.
for config in internal/httpapi/oapi-codegen*.yaml; do
  [ -e "$config" ] || continue
  "$(tool oapi-codegen)" -config "$config" api/openapi/openapi.yaml
done
