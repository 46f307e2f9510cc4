# Two commands: `make run` and `make test`. Both set up what is missing, and say nothing when nothing is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
ARGS ?=
BIN := .venv/bin

.PHONY: help
help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## set up, then converge specs/ and keep it converged, in the foreground
	@.setup/install.sh run
	@exec $(BIN)/masu run specs/

.PHONY: test
test: ## set up, then check the style and run every test (ARGS="-k name" for some)
	@.setup/install.sh test
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest tests $(ARGS)

.PHONY: lint
lint: ## ruff, mypy, import contracts
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	@cd controller/host/keeper && MYPYPATH=. ../../../$(BIN)/mypy --strict --no-error-summary --config-file= \
		--explicit-package-bases --python-version 3.11 .
	@$(BIN)/lint-imports --no-logo > $${TMPDIR:-/tmp}/masu-lint.$$$$ || { cat $${TMPDIR:-/tmp}/masu-lint.$$$$; rm $${TMPDIR:-/tmp}/masu-lint.$$$$; exit 1; }; rm -f $${TMPDIR:-/tmp}/masu-lint.$$$$

.PHONY: unit
unit: ## the tests that need no root, in seconds
	@$(BIN)/python -m pytest tests/unit tests/cases $(ARGS)

.PHONY: vm
vm: ## the tests inside a virtual machine with pure cgroup v2
	@.setup/install.sh test
	@$(BIN)/python -m pytest tests/vm $(ARGS)

.PHONY: bench
bench: ## the benchmarks, as a table (ARGS="--quick")
	@.setup/install.sh test
	@$(BIN)/python -m tests.bench $(ARGS)

.PHONY: clean
clean: ## remove the virtual environment and caches; containers are untouched
	@rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
