PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready
NATIVE := $(wildcard csrc/*) CMakeLists.txt

.PHONY: setup demo test lint docs bench clean

setup: $(STAMP)

# torch first and by itself: whatever torch the environment offers is kept, nothing here replaces it.
$(STAMP): pyproject.toml $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade pip
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install -q --disable-pip-version-check "torch==2.13.0"
	$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[dev]"
	touch $@

demo: $(STAMP)
	$(BIN)/python examples/digits.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

# The site, in site/: nothing is fetched while it is built, nor by its pages.
docs: $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The long evidence: writes benchmarks/*.json, docs/*.svg and docs/results.md. Needs ../shared/data and nncodec (see benchmarks/README.md).
bench: $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[bench]"
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build site
