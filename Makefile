# `make setup` makes the virtual environment; every other target makes it first where it is missing or out of date.
#   PYTHON=python3.12 VENV=.venv312 make test    another interpreter, in an environment of its own
#   make demo ARGS='--port 9000 --seed 1'        the demo's flags; make test ARGS='-k manifest' likewise

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: setup demo test test-fast test-slow lint bench

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) --version >/dev/null 2>&1 || { echo "setup: no $(PYTHON) here; name a Python 3.11 or 3.12, such as PYTHON=python3.12 make setup" >&2; exit 2; }
	@echo "setup: $(VENV) with $$($(PYTHON) --version)" >&2
	@$(PYTHON) -m venv $(VENV)
	@echo "setup: installing the packages of pyproject.toml: about 7 GB on disk, 2 to 10 minutes (PyTorch with CUDA, DALI)" >&2
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --editable '.[dev]' 2>&1 | $(BIN)/python demo/setup_progress.py
	@touch $@

demo: setup
	@$(BIN)/python -m demo.run $(ARGS)

test: setup
	@$(PYTEST) -m "not slow" $(ARGS)

test-fast: setup
	@$(PYTEST) -m "not slow" --ignore tests/real --ignore tests/train --ignore tests/eval $(ARGS)

test-slow: setup
	@$(PYTEST) -m slow $(ARGS)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: setup
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python "$$file" || exit 1; done
