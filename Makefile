# Two commands: `make run` and `make test`. Both set up what is missing, and say nothing when nothing is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.SUFFIXES:
ARGS ?=
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

# On a machine that decides about changes, a test that did not run is a test that failed.
ifeq ($(CI),true)
export MASU_STRICT_SKIPS := 1
endif

.PHONY: help
help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## set up, then converge specs/ and keep it converged, in the foreground
	@.setup/install.sh run
	@exec $(BIN)/masu run --allow-unsafe-source specs/ $(ARGS)  # programs of this checkout run as root anyway

.PHONY: test
test: ready lint ## set up, then check the style and run every test in two processes (ARGS="-k name" for some, -n 0 for one)
	@exec $(PYTEST) -n 2 tests $(ARGS)

.PHONY: lint
lint: ready ## ruff, mypy, import contracts
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	@cd controller/host/keeper && MYPYPATH=. ../../../$(BIN)/mypy --strict --no-error-summary --config-file= \
		--explicit-package-bases --python-version 3.11 .
	@said=$$($(BIN)/lint-imports --no-logo 2>&1) || { printf '%s\n' "$$said"; exit 1; }

.PHONY: unit
unit: $(BIN)/pytest ## the tests that need no root, in seconds
	@exec $(PYTEST) tests/unit tests/cases $(ARGS)

.PHONY: fuzz
fuzz: $(BIN)/pytest ## what others write, anew each time (MASU_FUZZ_EXAMPLES=100 for longer; ARGS as for test)
	@MASU_FUZZ_EXAMPLES=$${MASU_FUZZ_EXAMPLES:-10} exec $(PYTEST) -o timeout=0 tests/fuzz $(ARGS)

.PHONY: reference
reference: $(BIN)/pytest ## write docs/reference.md from the schemas
	@for kind in Container Network Volume Group Node HostPolicy; do $(BIN)/masu schema $$kind -o markdown; done >docs/reference.md

.PHONY: vm
vm: ready ## the tests inside a virtual machine with pure cgroup v2
	@exec $(PYTEST) tests/vm $(ARGS)

.PHONY: vm-long
vm-long: ready ## those, and all tests of networks there (a quarter of an hour)
	@MASU_VM_LONG=1 exec $(PYTEST) tests/vm $(ARGS)

.PHONY: soak
soak: ready ## networked containers come and go for half an hour; nothing may grow
	@MASU_SOAK=900 exec $(PYTEST) tests/e2e/test_soak.py $(ARGS)

.PHONY: bench
bench: ready ## the benchmarks, as a table (ARGS="--quick")
	@exec $(BIN)/python -m tests.bench $(ARGS)

.PHONY: clean
clean: ## remove the virtual environment and caches; containers and /opt/masu are untouched
	@rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: ready
ready:
	@.setup/install.sh test

$(BIN)/pytest:
	@.setup/install.sh test
