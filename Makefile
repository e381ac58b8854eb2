# Each target creates .venv and installs what it needs by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
export UDABENCH_DATA

.PHONY: demo test test-slow test-gpu lint bench small-benchmark clean

demo: $(VENV)/.runtime
	$(BIN)/udabench demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

test-slow: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "slow and not gpu"

test-gpu: $(VENV)/.dev
	$(BIN)/python -m pytest -m gpu

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

JOBS ?= $(shell nproc 2>/dev/null || echo 1)
small-benchmark: $(VENV)/.runtime
	$(BIN)/udabench sweep leaderboards/small.yaml --jobs $(JOBS) --runs runs/small --yes
	$(BIN)/udabench sweep leaderboards/small-offline.yaml --jobs $(JOBS) --runs runs/small --yes

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml | $(BIN)/python
	$(PIP) -e ".[weights]"
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(PIP) -e ".[dev]"
	touch $@ $(VENV)/.runtime

clean:
	rm -rf build dist demo .pytest_cache .mypy_cache .ruff_cache
