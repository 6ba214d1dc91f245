# "make" alone lists the targets. Nothing has to be configured: what is missing is built or downloaded, pinned, and kept
# in bin/ or, for the control plane and the object stores, in the user's cache.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

IMG          ?= bulkjob-operator:dev
ENDPOINT_IMG ?= bulk-endpoint:dev
VERSION      ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME     ?= 30s
CONTAINER    ?= docker
TARGET       ?= memory
KEEP         ?=
ONLY         ?=
QUICK        ?=
SEED         ?=
JOBS         ?=
KILLS        ?=
MINUTES      ?=
SHORT        ?=
N            ?=
NAME         ?=
VULNDB       ?=
VULNDB_OPTIONAL ?=
BASE_URL     ?=

BIN       := bin
# A compiler that collects no garbage is a fifth faster; the limit is per process. Equal flags share one build cache.
COMPILE   := GOGC=off GOMEMLIMIT=5GiB CGO_ENABLED=0 go
COVERED   := ./cmd/...,./controllers/...,./internal/...
GENERATED := api config/crd/bases config/rbac config/helm/templates docs/reference.md
# A kubectl of the user's own is preferred; the control plane's does as well. Looked up only where it is used.
KUBECTL   ?= $(or $(shell command -v kubectl),$(lastword $(shell hack/controlplane.sh))/kubectl)
say       = @printf '\n==> %s\n' "$(1)"

##@ Use

.PHONY: help
help: ## Show this list.
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s:\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## See a CSV arrive: control plane, operator, endpoint, ten contacts. TARGET=memory|postgresql|basecrm, KEEP=1 to explore.
	$(call say,Getting the control plane and the demo ready)
	@$(COMPILE) build -trimpath -o $(BIN)/demo ./hack/demo
	@KUBEBUILDER_ASSETS=$$(hack/controlplane.sh | tail -n 1); export KUBEBUILDER_ASSETS; \
	if [ '$(TARGET)' = postgresql ]; then PATH=$$PATH:$$(hack/postgresql.sh | tail -n 1); fi; \
	TARGET='$(TARGET)' KEEP='$(KEEP)' exec $(BIN)/demo

.PHONY: run
run: ## Run the operator here against the cluster of your kubeconfig (make install first).
	go run ./cmd/manager $(ARGS)

##@ Develop

.PHONY: build
build: ## Build bin/manager, bin/bulk-endpoint and bin/kubectl-bulkjob.
	$(call say,Building the manager, the endpoint and the plugin (minutes with an empty Go cache))
	@$(COMPILE) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN)/ ./cmd/manager ./cmd/bulk-endpoint ./cmd/kubectl-bulkjob

.PHONY: generate
generate: $(BIN)/controller-gen ## Generate the deep copies of the API types.
	$(BIN)/controller-gen object:headerFile=hack/boilerplate.go.txt paths=./api/...

.PHONY: manifests
manifests: $(BIN)/controller-gen ## Generate the CRDs and the operator's role.
	$(BIN)/controller-gen crd rbac:roleName=manager-role paths=./... \
		output:crd:artifacts:config=config/crd/bases output:rbac:artifacts:config=config/rbac

.PHONY: docs
docs: $(BIN)/crd-ref-docs ## Generate docs/reference.md.
	$(BIN)/crd-ref-docs --log-level=ERROR --source-path=api/v1alpha1 --config=hack/tools/crd-ref-docs.yaml \
		--renderer=markdown --output-path=docs/reference.md

.PHONY: chart
chart: ## Generate the templates of the Helm chart from the bases in config.
	@go run ./hack/chart -kubectl $(KUBECTL)

.PHONY: fmt
fmt: $(BIN)/golangci-lint ## Format the code and order the imports.
	$(BIN)/golangci-lint fmt ./...

.PHONY: vet
vet: ## Run go vet.
	go vet ./...

# A collector that runs less often, up to the limit, is a sixth faster.
.PHONY: lint
lint: $(BIN)/golangci-lint ## Run the linters of .golangci.yml.
	$(call say,Linting (minutes with an empty cache))
	@export CGO_ENABLED=0 GOGC=400 GOMEMLIMIT=4GiB GOFLAGS="-trimpath $$(go env GOFLAGS)"; \
	$(BIN)/golangci-lint run ./...; \
	for module in hack/controlplane hack/peer test/gitops test/install; do \
		(cd $$module && $(CURDIR)/$(BIN)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...); done

.PHONY: controlplane
controlplane: ## Put etcd, kube-apiserver and kubectl in place; the last line printed is their directory.
	@hack/controlplane.sh

.PHONY: stores
stores: ## Put S3, Google and Azure storage servers in place, for tests; the last line printed is their directory.
	@hack/stores.sh

# make lint runs vet, and more than go test would: with an empty cache it looks through all of Kubernetes once, not twice.
.PHONY: test
test: ## Run every test, with a real control plane, PostgreSQL and object stores; prints the coverage.
	$(call say,Getting a control plane and PostgreSQL and Prometheus and Chromium and object stores ready)
	@hack/curl.sh >/dev/null; \
	KUBEBUILDER_ASSETS=$$(hack/controlplane.sh | tail -n 1); PATH=$$PATH:$$(hack/postgresql.sh | tail -n 1):$$(hack/prometheus.sh | tail -n 1); \
	BULKJOB_STORES=$$(hack/stores.sh | tail -n 1); BULKJOB_CHROMIUM=$$(hack/chromium.sh | tail -n 1); \
	export KUBEBUILDER_ASSETS PATH BULKJOB_STORES BULKJOB_CHROMIUM; \
	printf '\n==> Compiling and testing, race detector on (minutes with an empty Go cache)\n'; \
	go test -race -vet=off -timeout 20m -coverprofile=coverage.out -coverpkg=$(COVERED) ./... | \
		awk '{sub(/[ \t]*coverage: .*/, ""); print; fflush()}'; \
	printf '\n==> Testing with the tools of others: test/install and test/gitops, at once (minutes with an empty Go cache)\n'; \
	export CGO_ENABLED=0; failed=; go -C test/install test -trimpath -vet=off -timeout 20m -count=1 ./... & \
	go -C test/gitops test -trimpath -vet=off -timeout 20m -count=1 ./... || failed=1; wait $$! || failed=1; [ -z "$$failed" ]; \
	printf '\n==> Testing the control plane itself\n'; \
	if [ -x "$$KUBEBUILDER_ASSETS/controlplane" ]; then go -C hack/controlplane/acceptance test -trimpath -vet=off -count=1 .; \
	else echo 'These are published binaries, tested by those who made them. CONTROLPLANE=source builds and tests ours.'; fi; \
	printf '\n==> Coverage, whichever package a test is in\n'; \
	go tool cover -func=coverage.out | tail -n 1

.PHONY: crash
crash: ## Let the operator die at every place there is, in 1,200 schedules, and check the endpoint's books. SEED=1, N=1200 (0: all), NAME=.
	$(call say,Getting a control plane ready)
	@$(COMPILE) build -trimpath -o $(BIN)/crash ./test/crash
	@KUBEBUILDER_ASSETS=$$(hack/controlplane.sh | tail -n 1); export KUBEBUILDER_ASSETS; \
	exec $(BIN)/crash $(if $(SEED),-seed '$(SEED)') $(if $(N),-n '$(N)') $(if $(NAME),-run '$(NAME)')

.PHONY: chaos
chaos: build ## Kill real processes at random for minutes, then count the rows. SEED=, JOBS=300, KILLS=60, MINUTES=8, SHORT=1, KEEP=1.
	$(call say,Getting a control plane and PostgreSQL and an S3 server ready)
	@$(COMPILE) build -trimpath -o $(BIN)/chaos ./test/chaos
	@KUBEBUILDER_ASSETS=$$(hack/controlplane.sh | tail -n 1); BULKJOB_STORES=$$(hack/stores.sh s3 | tail -n 1); \
	PATH=$$PATH:$$(hack/postgresql.sh | tail -n 1); export KUBEBUILDER_ASSETS BULKJOB_STORES PATH; \
	SEED='$(SEED)' JOBS='$(JOBS)' KILLS='$(KILLS)' MINUTES='$(MINUTES)' SHORT='$(SHORT)' KEEP='$(KEEP)' exec $(BIN)/chaos

.PHONY: bench
bench: build ## Measure against curl, psql and others, side by side, and write docs/benchmarks.md. ONLY=name,name, QUICK=1, PROFILE=1.
	$(call say,Getting a control plane and PostgreSQL and an S3 server ready)
	@$(COMPILE) build -trimpath -o $(BIN)/bench ./test/perf
	@KUBEBUILDER_ASSETS=$$(hack/controlplane.sh | tail -n 1); BULKJOB_STORES=$$(hack/stores.sh s3 | tail -n 1); \
	case '$(ONLY)' in '' | *peer*) BULKJOB_PEER=$$(hack/peer.sh | tail -n 1); export BULKJOB_PEER;; esac; \
	PATH=$$PATH:$$(hack/postgresql.sh | tail -n 1); export KUBEBUILDER_ASSETS BULKJOB_STORES PATH; \
	ONLY='$(ONLY)' QUICK='$(QUICK)' PROFILE='$(PROFILE)' exec $(BIN)/bench

# Each package is compiled once for all its targets, and only our own code is watched: counters in all of Kubernetes' packages as well make
# an execution a hundred times slower, and everything has to be compiled anew.
.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (30s). What fails is kept beside it, in testdata/fuzz.
	$(call say,Compiling the fuzz targets (minutes with an empty Go cache))
	@programs=$$(mktemp -d); trap 'rm -rf "$$programs"' EXIT; found=$$(go env GOCACHE)/fuzz/$$(go list -m); \
	packages=$$(grep -rlE '^func Fuzz' --include='*_test.go' api cmd controllers internal | xargs -n 1 dirname | sort -u); \
	$(COMPILE) test -c -trimpath -gcflags="$$(go list -m)/...=-d=libfuzzer" -o "$$programs/" $$(printf './%s ' $$packages); \
	for package in $$packages; do \
		for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9]+' "$$package"/*_test.go | cut -d ' ' -f 2); do \
			printf '\n==> %s %s\n' "$$package" "$$target"; \
			(cd "$$package" && "$$programs/$${package##*/}.test" -test.run '^$$' -test.fuzz "^$$target\$$" -test.fuzztime $(FUZZTIME) \
				-test.fuzzcachedir "$$found/$$package" </dev/null 2>&1) | \
				awk '{print; fflush()} /without coverage guidance/ {blind = 1} END {exit blind}'; \
		done; \
	done

.PHONY: vulncheck
vulncheck: $(BIN)/govulncheck ## Look for known vulnerabilities in what is called. Needs the network. VULNDB=URL, VULNDB_OPTIONAL=1.
	$(call say,Looking for known vulnerabilities)
	@GOVULNCHECK=$(CURDIR)/$(BIN)/govulncheck VULNDB='$(VULNDB)' VULNDB_OPTIONAL='$(VULNDB_OPTIONAL)' hack/vulncheck.sh

.PHONY: verify
verify: ## Fail if generated code, manifests or docs are stale; they are fresh afterwards.
	$(call say,Generating all anew and comparing)
	@before=$$(mktemp -d); trap 'rm -rf "$$before"' EXIT; tar cf - $(wildcard $(GENERATED)) | tar xf - -C "$$before"; \
	$(MAKE) generate manifests docs chart; stale=0; \
	for path in $(GENERATED); do diff -ruN "$$before/$$path" "$$path" || stale=1; done; \
	if [ $$stale = 1 ]; then echo 'Stale: the lines above were generated just now. Look at them and commit them.'; exit 1; fi; \
	echo 'Fresh: generated code, manifests, chart and reference.'

.PHONY: clean
clean: ## Remove what was built here (the control plane and the stores in the user's cache stay).
	rm -rf bin dist coverage.out

##@ Deploy

.PHONY: docker-build
docker-build: ## Build the images IMG and ENDPOINT_IMG.
	$(CONTAINER) build --build-arg VERSION=$(VERSION) --target manager --tag $(IMG) .
	$(CONTAINER) build --build-arg VERSION=$(VERSION) --target bulk-endpoint --tag $(ENDPOINT_IMG) .

.PHONY: build-installer
build-installer: ## Write dist/crds.yaml and dist/install.yaml, with IMG as the operator's image.
	@KUBECTL='$(KUBECTL)' hack/manifests.sh dist '$(IMG)'
	@echo "kubectl apply --server-side -f dist/crds.yaml -f dist/install.yaml"

.PHONY: release
release: $(BIN)/cyclonedx-gomod ## Make dist/release: programs, plugin, manifests, bills of materials, SHA256SUMS. VERSION=v0.1.0 IMG=... BASE_URL=https://...
	$(call say,Making the release $(VERSION) (minutes with an empty Go cache))
	@VERSION='$(VERSION)' IMG='$(IMG)' BASE_URL='$(BASE_URL)' KUBECTL='$(KUBECTL)' CYCLONEDX=$(CURDIR)/$(BIN)/cyclonedx-gomod hack/release.sh

.PHONY: install
install: ## Install the CRDs into the cluster of your kubeconfig.
	$(KUBECTL) apply --server-side -k config/crd

.PHONY: uninstall
uninstall: ## Delete the CRDs with every job and every receipt, that is, forget what was loaded. Needs CONFIRM=yes.
	@if [ '$(CONFIRM)' != yes ]; then \
		echo 'This deletes every receipt: data that was loaded once would be sent again. CONFIRM=yes if you mean it.'; exit 1; fi
	$(KUBECTL) annotate --overwrite crd bulkjobs.bulkjob.dev bulkreceipts.bulkjob.dev connectorinstances.bulkjob.dev bulkjob.dev/deletion=allowed
	$(KUBECTL) delete --ignore-not-found -k config/crd
	$(KUBECTL) delete --ignore-not-found -k config/policy

.PHONY: deploy
deploy: build-installer ## Install the operator and its CRDs into the cluster of your kubeconfig, with IMG.
	$(KUBECTL) apply --server-side -f dist/crds.yaml -f dist/install.yaml

.PHONY: undeploy
undeploy: build-installer ## Remove the operator, but leave the CRDs, the jobs and the receipts.
	$(KUBECTL) delete --ignore-not-found -f dist/install.yaml

# Tools, each built once per change of the versions pinned in hack/tools.
$(BIN)/controller-gen: PACKAGE := sigs.k8s.io/controller-tools/cmd/controller-gen
$(BIN)/crd-ref-docs: PACKAGE := github.com/elastic/crd-ref-docs
$(BIN)/golangci-lint: PACKAGE := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(BIN)/govulncheck: PACKAGE := golang.org/x/vuln/cmd/govulncheck
$(BIN)/cyclonedx-gomod: PACKAGE := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
$(BIN)/controller-gen $(BIN)/crd-ref-docs: hack/tools/go.mod
$(BIN)/golangci-lint: hack/tools/lint/go.mod
$(BIN)/govulncheck $(BIN)/cyclonedx-gomod: hack/tools/release/go.mod
$(BIN)/controller-gen $(BIN)/crd-ref-docs $(BIN)/golangci-lint $(BIN)/govulncheck $(BIN)/cyclonedx-gomod:
	$(call say,Building $(@F))
	@$(COMPILE) -C $(<D) build -trimpath -ldflags '-s -w' -o $(CURDIR)/$@ $(PACKAGE)
	@touch $@
