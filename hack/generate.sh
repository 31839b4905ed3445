#!/bin/sh
# generate.sh: make everything in the repository that is generated. The tools are pinned in hack/tools/go.mod and built on the first use.
set -eu
cd "$(dirname "$0")/.."

# The tools are told apart from what they are run on: neither a GOFLAGS with -mod=mod or -modfile nor a workspace around
# the repository may change which version of a tool is taken, or its go.mod.
tool() { GOFLAGS=-mod=readonly GOWORK=off go -C hack/tools tool -n "$1"; }

controller_gen=$(tool controller-gen)
sqlc=$(tool sqlc)
oapi_codegen=$(tool oapi-codegen)
header=hack/boilerplate.go.txt

# Kubernetes: deep copies, apply configurations, CRDs, and from the markers in the code the rights and the webhooks.
"$controller_gen" object:headerFile=$header paths=./api/v1alpha1
# What is generated no longer must not stay.
rm -rf api/v1alpha1/applyconfiguration
"$controller_gen" applyconfiguration:headerFile=$header paths=./api/v1alpha1
"$controller_gen" crd paths=./api/v1alpha1 output:crd:dir=config/crd/bases
"$controller_gen" rbac:roleName=usage-operator-manager paths=./internal/controller/... paths=./internal/certs/... output:rbac:dir=config/rbac
"$controller_gen" webhook paths=./internal/webhook/... output:webhook:dir=config/webhook

# PostgreSQL: Go from the queries and migrations.
(cd internal/postgres && "$sqlc" generate)

# HTTP: the server and the client from the contract.
"$oapi_codegen" -config internal/httpapi/oapi-codegen.yaml api/openapi/openapi.yaml
"$oapi_codegen" -config api/client/oapi-codegen.yaml api/openapi/openapi.yaml
