# `make quickstart` and `make test` do all the set-up in a fresh clone: Python 3.11 and make are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# OpenMP threads beyond the cores only slow small networks down; the tests start several processes themselves.
export NO_ALBUMENTATIONS_UPDATE := 1

.PHONY: quickstart test lint slow speed docs clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "synthaug needs Python 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

quickstart: $(VENV)/.installed
	$(BIN)/synthaug quickstart

test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy
	$(BIN)/lint-imports

slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

# figures, not conditions: images per second of each family at its preset
speed: $(VENV)/.installed
	$(BIN)/python -m pytest tests/speed/bench_*.py --benchmark-only --benchmark-disable-gc --benchmark-columns=min,median

# the site, into site/; a warning is an error
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) runs out site
