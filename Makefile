# Each target below has one line of help; `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-gpu lint types check fix fixtures bench docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-10s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV) (once; a few minutes where torch must be downloaded)"
	@$(PYTHON) -c 'import sys; sys.exit("python 3.11 or later is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --editable '.[dev,mlx]' || { echo "without mlx-lm, which has no wheels for this system: its tests will be skipped"; $(INSTALL) --editable '.[dev]'; }
	@touch $@

setup: $(READY)  ## create the environment, once

demo: $(READY)  ## convert, prove and run a really trained model
	@$(BIN)/python examples/demo.py

test: $(READY)  ## all tests that need no GPU
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-gpu: $(READY)  ## the kernel's tests on a CUDA device
	@$(BIN)/python -m pytest -q tests/kernels

lint: $(READY)  ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY)  ## mypy --strict
	@$(BIN)/mypy

check: lint types test  ## everything that CI runs

fix: $(READY)  ## let ruff repair what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

fixtures: $(READY)  ## rebuild the small fixtures in memory, fail on a difference
	@$(BIN)/python -m fixtures.make_small --check

bench: $(READY)  ## measure conversion beside cp and other programs
	@$(BIN)/python benchmarks/convert.py

docs: $(READY)  ## run the examples in docstrings
	@$(BIN)/python -m pytest -q --doctest-modules ropeconv/words ropeconv/formats ropeconv/knowledge ropeconv/thinking ropeconv/moving ropeconv/cli ropeconv/proof/probe.py

clean:  ## remove the environment and everything built
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
