# Two commands for a bare machine: `make demo` runs the whole job on made-up images, `make test` runs the tests.
# Each sets up its own .venv first; nothing outside this folder is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check lint types nightly clean

demo: $(STAMP)
	$(BIN)/quantward demo --out demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

check: lint types test

# The studies of the five papers at their smallest scale, on made-up images.
nightly: $(STAMP)
	for study in studies/*.yaml; do \
	  $(BIN)/quantward study $$study --smoke --out nightly/$$(basename $$study .yaml) || exit 1; \
	done

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

$(STAMP): pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo nightly build dist .pytest_cache .mypy_cache .ruff_cache
