# Two commands, each of which sets itself up on a fresh machine: `make train` and `make test`.
# Everything is installed into a local .venv; nothing outside this folder changes.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The first interpreter of at least 3.11 that really runs (a pyenv shim may exist and still refuse).
find_python = $(shell for p in $(1); do \
	"$$p" -c 'import sys; sys.exit(sys.version_info[:2] < $(2))' >/dev/null 2>&1 && echo "$$p" && break; done)
PYTHON ?= $(call find_python,python3 python3.11 python3.12 python3.13 python,(3$(comma)11))
NEWEST ?= $(call find_python,python3.12 python3.13 $(wildcard $(HOME)/.pyenv/versions/3.12*/bin/python),(3$(comma)12))
comma := ,

# Compile quickly, as `make test` runs most programs once on a few numbers; `make test-all` compiles as users do.
# XLA ends on a flag that it does not know, so the flags are tried first.
flags := --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1
quick = JAX_DISABLE_MOST_OPTIMIZATIONS=1 XLA_FLAGS="$${XLA_FLAGS:-} $(shell \
	XLA_FLAGS="$(flags)" $(BIN)/python -c 'import jax; jax.devices("cpu")' >/dev/null 2>&1 && echo $(flags))"

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: help train check test test-all test-newest format peers docs clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

train: $(VENV)/.train ## train a character language model on Shakespeare, then generate; options: make train ARGS="--help"
	@$(BIN)/python examples/char_lm.py --cores 0 $(ARGS)

check: $(VENV)/.dev ## format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

test: check ## the checks, and all tests but those marked `full`: minutes on two cores
	$(quick) $(BIN)/python -m pytest -n 2 --dist worksteal -m "not full" $(ARGS)

test-all: check ## the checks and every test, for releases and nights
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

test-newest: ## the tests on the newest jax, under Python 3.12 or later, where that interpreter exists
	@if [ -z "$(NEWEST)" ]; then echo "make test-newest: no Python 3.12 or later was found; set NEWEST=/path/to/python"; exit 1; fi
	@$(MAKE) --no-print-directory VENV=.venv-newest PYTHON="$(NEWEST)" .venv-newest/.dev
	.venv-newest/bin/python -m pip install --quiet --upgrade jax jaxlib
	.venv-newest/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

format: $(VENV)/.dev ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

peers: $(VENV)/.dev ## install PyTorch, Keras, Haiku, Equinox and ONNX Runtime, so that the tests marked `peer` compare with them
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[interop]"

docs: $(VENV)/.dev ## write docs/cells.md and the pictures in docs/ again, from the code
	$(BIN)/python -m docs.cells
	$(BIN)/python -m docs.diagnostics
	$(BIN)/python examples/gradient_flow.py --into docs/gradient_flow

clean: ## remove the environments and caches
	rm -rf .venv .venv-newest .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@if [ -z "$(PYTHON)" ]; then echo "seqjax needs Python 3.11 or later; set PYTHON=/path/to/python"; exit 1; fi
	@echo "setting up $(VENV) with $(PYTHON) (once) ..."
	@"$(PYTHON)" -m venv $(VENV)

$(VENV)/.train: pyproject.toml | $(VENV)/bin/python
	@echo "installing seqjax and what training needs (once, a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[train,plot,text,music]"
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "installing seqjax and what its tests need (once, a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@ $(VENV)/.train
