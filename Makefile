# The developer's manual. Every target makes .venv in the checkout if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PAGE := $(shell find web -type f -not -path "*/node_modules/*")

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow lint format docs bench clean

help:  ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 10

$(VENV)/.run: pyproject.toml hatch_build.py $(PAGE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "histoclick needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3"; exit 2; }
	@echo "Making $(VENV) and installing histoclick into it (one to three minutes, once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

setup: $(VENV)/.dev  ## .venv with everything a developer needs

demo: $(VENV)/.run  ## offline tour: evaluate the built-in model, write the report, annotate a generated slide
	@$(BIN)/histoclick demo

test: $(VENV)/.dev  ## the test suite
	@$(BIN)/python -m pytest

slow: $(VENV)/.dev  ## the tests that take minutes or gigabytes
	@$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev  ## format, style, types, import directions, generated docs
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python docs/cli_reference.py --check
	@$(BIN)/python docs/round_trips.py --check

format: $(VENV)/.dev  ## put the code into its form
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(VENV)/.dev  ## generated pages: the command line reference, the table of conversions
	@$(BIN)/python docs/cli_reference.py
	@$(BIN)/python docs/round_trips.py

bench: $(VENV)/.dev  ## speed on this machine
	@$(BIN)/python benchmarks/speed.py

clean:  ## remove .venv and caches
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
