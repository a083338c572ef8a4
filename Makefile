# Every target but help and clean first makes sure that the environment in $(VENV) is current.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= eval,train,serve,dev
# Test workers; each one keeps torch to a single thread (tests/conftest.py).
WORKERS ?= 2

comma := ,
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))
PACKAGES := $(wildcard unitok mllm eval train)
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install format check test test-all demo clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

install: $(STAMP)  ## Create $(VENV) and install the project with all that these targets need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: $(PYTHON) is missing or older than Python 3.11; name a newer one: make install PYTHON=python3.12" >&2; \
		exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

format: $(STAMP)  ## Sort imports, apply safe fixes and format
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

check: $(STAMP)  ## Lint, format check, spelling, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/python -m pytest --quiet tests/test_layering.py

test: $(STAMP)  ## Run the tests that need no GPU, network or released weights
	$(PYTEST)

test-all: $(STAMP)  ## Run every test; those without their device or weights are skipped
	$(PYTEST) -m ''

demo: $(STAMP)  ## Chat about pictures, draw some and score the embedded model
	$(BIN)/python -m eval.demo

clean:  ## Remove the environment, caches and demo output
	rm -rf $(VENV) demo build dist .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
