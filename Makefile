# `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

# The image's name and tag.
IMG ?= usage-operator:dev
# What the image is built from: any image that can run a static program.
BASE ?= scratch
# What is deployed, and where: a folder below config/overlays, or default.
OVERLAY ?= default
NAMESPACE ?= usage-operator-system
KUBECTL ?= kubectl
# The database of OVERLAY=dev; `make postgres-image` builds one where no registry is in reach.
POSTGRES_IMG ?= postgres:17
# What to test, and further flags of `go test`, such as TESTFLAGS='-run TestAdmit -v'.
PKGS ?= ./...
TESTFLAGS ?=
# Flags of the crash run, such as '-seed 7 -duration 30m'.
CRASHFLAGS ?=

GOLANGCI_LINT := bin/golangci-lint
# The pages' sources, and what is made of them.
WEB := internal/console/web
# Every program that the image holds.
PROGRAMS := manager usaged usage-batch usage-run

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Play the whole story on a cluster of this machine's own (the first run builds the control plane)
	@$(call stack,demo)

.PHONY: run
run: ## Bring up the same stack and leave it running until Ctrl-C
	@$(call stack,run)

.PHONY: run-year
run-year: ## The same, with what a hundred users have done in a year
	@$(call stack,year)

# Built and then executed, because `go run` would stand between the terminal's signals and the stack.
define stack
assets=$$(hack/controlplane/build.sh); \
$(build_stack); \
KUBEBUILDER_ASSETS=$$assets exec bin/stack $(1)
endef
define build_stack
mkdir -p bin; \
echo "building $(PROGRAMS) and the stack (a minute or two the first time)" >&2; \
go build -tags testclock -o bin/ $(addprefix ./cmd/,$(PROGRAMS)) ./hack/stack
endef

.PHONY: test
test: ## Run all tests with the race detector against a real API server and a real PostgreSQL
	assets=$$(hack/controlplane/build.sh); KUBEBUILDER_ASSETS=$$assets go test -race -timeout 20m $(TESTFLAGS) $(PKGS)

.PHONY: test-e2e
test-e2e: ## Run the end-to-end suite on a kind cluster of several nodes (needs Docker); KEEP=1 keeps it for the next run
	@hack/e2e.sh

.PHONY: test-pooler
test-pooler: ## Test the ledger through a real pgbouncer in transaction mode (installs or unpacks one with apt if there is none)
	pgbouncer=$$(hack/pgbouncer.sh); PGBOUNCER=$$pgbouncer go test -race -tags pooler -count 1 -v -timeout 5m ./test/pooler

.PHONY: bench
bench: ## Measure against pgbench in the same run, one BENCH line per figure (BENCHFLAGS='-run uniform')
	@assets=$$(hack/controlplane/build.sh); KUBEBUILDER_ASSETS=$$assets go run ./test/perf $(BENCHFLAGS)

.PHONY: forecast-oracle
forecast-oracle: ## Have R's ets foretell the public series that forecasts are compared on (needs r-base-core and r-cran-forecast)
	Rscript internal/forecast/testdata/ets.R internal/forecast/testdata

.PHONY: crash
crash: ## Kill servers and services under load, and compare what was acknowledged (CRASHFLAGS='-operations 1000000')
	@assets=$$(hack/controlplane/build.sh); \
	mkdir -p bin; \
	go build -o bin/ $(addprefix ./cmd/,$(PROGRAMS)) ./test/crash; \
	KUBEBUILDER_ASSETS=$$assets exec bin/crash $(CRASHFLAGS)

.PHONY: generate
generate: ## Regenerate everything that is generated: CRDs, RBAC, deep copies, SQL and HTTP code
	hack/generate.sh

.PHONY: web
web: $(WEB)/node_modules/.package-lock.json ## Build the pages into $(WEB)/dist, which is committed (needs Node; building Go does not)
	npm --prefix $(WEB) run --silent types
	npm --prefix $(WEB) run --silent check
	npm --prefix $(WEB) run --silent build

.PHONY: test-web
test-web: $(WEB)/node_modules/.package-lock.json ## Test the pages in a real browser (needs Node; installs Chromium with apt as root, else says what to install)
	@assets=$$(hack/controlplane/build.sh); chromium=$$(hack/chromium.sh); $(build_stack); \
	cd $(WEB); export KUBEBUILDER_ASSETS=$$assets CHROMIUM=$$chromium; \
	node --test --test-concurrency=1 --test-reporter=spec test/*.test.mjs

.PHONY: lighthouse
lighthouse: $(WEB)/node_modules/.package-lock.json ## Have Lighthouse judge each page (npx fetches it), or those of PAGES; fails below 95
	@assets=$$(hack/controlplane/build.sh); chromium=$$(hack/chromium.sh); $(build_stack); \
	cd $(WEB); KUBEBUILDER_ASSETS=$$assets CHROMIUM=$$chromium node test/lighthouse.mjs $(PAGES)

.PHONY: screenshots
screenshots: $(WEB)/node_modules/.package-lock.json ## Make the pictures of the documentation, in docs/pictures; those of PAGES, if that names some
	chromium=$$(hack/chromium.sh); cd $(WEB); CHROMIUM=$$chromium node test/screenshots.mjs $(PAGES)

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Run the linters, the import directions among them
	$(GOLANGCI_LINT) run ./...

.PHONY: fmt
fmt: $(GOLANGCI_LINT) ## Format the Go code
	$(GOLANGCI_LINT) fmt ./...

.PHONY: verify
verify: generate ## Regenerate, vet, lint; then nothing may differ from what is committed
	@if command -v npm >/dev/null; then $(MAKE) web; \
	else echo "verify: there is no Node here, so $(WEB)/dist is not compared with its sources" >&2; fi
	go vet -tags e2e ./...
	$(MAKE) lint
	@if [ -n "$$(git status --porcelain)" ]; then \
	  git --no-pager diff --stat; git status --short; \
	  echo "verify: the working tree differs from the commit; run 'make generate fmt' and commit the result" >&2; exit 1; \
	fi

.PHONY: image
image: ## Build the container image $(IMG), FROM $(BASE)
	@hack/image/build.sh $(IMG) $(BASE) $(PROGRAMS)

.PHONY: postgres-image
postgres-image: ## Build the image $(POSTGRES_IMG) of a development database from Debian's packages, where no registry is in reach
	@hack/image/postgres.sh $(POSTGRES_IMG)

.PHONY: install
install: ## Install the CRDs and the admission policies alone into the cluster that kubectl points at
	$(KUBECTL) apply --server-side --kustomize config/install

.PHONY: deploy
deploy: ## Deploy to the cluster that kubectl points at: OVERLAY (default, dev, cert-manager, prometheus), IMG, NAMESPACE
	@KUBECTL="$(KUBECTL)" hack/deploy.sh deploy $(OVERLAY) $(NAMESPACE) $(IMG) $(POSTGRES_IMG)

.PHONY: undeploy
undeploy: ## Remove everything that deploy made, plans and quotas included; the external database stays
	@KUBECTL="$(KUBECTL)" hack/deploy.sh undeploy $(OVERLAY) $(NAMESPACE) $(IMG) $(POSTGRES_IMG)

.PHONY: clean
clean: ## Remove what was built in this folder (the control plane's cache stays)
	rm -rf bin

# The linter's own dependencies, pinned in a module of their own, so rebuilt only when that changes.
$(GOLANGCI_LINT): hack/tools/go.mod
	@mkdir -p $(@D)
	@echo "building golangci-lint (first time only)" >&2
	GOFLAGS= go build -C hack/tools -o $(CURDIR)/$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

# The pages' dependencies, as their lock file has them.
$(WEB)/node_modules/.package-lock.json: $(WEB)/package-lock.json
	npm --prefix $(WEB) ci --silent
	@touch $@
