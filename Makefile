# `make demo` and `make test` work from a fresh clone with Python 3.11 to 3.13 and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test quick lint format stubs bench clean

setup: $(STAMP)

# --no-compile: byte code is made for what is imported, not for 3 GB of what is not.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/hybridge demo --out demo-out --overwrite

test: $(STAMP) lint
	$(BIN)/python -m pytest -q

quick: $(STAMP) lint
	$(BIN)/python -m pytest -q -m 'not slow'

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The Open Inference Protocol stubs, from the .proto beside them.
stubs: $(STAMP)
	$(BIN)/python -m cloud_fallback.open_inference.generate

# Measurements on real models: HYBRIDGE_DATA names the folder that holds them.
bench: $(STAMP)
	$(BIN)/python -m benchmarks.model_overhead
	$(BIN)/python -m benchmarks.import_cost
	$(BIN)/python -m benchmarks.fallback_overhead

clean:
	rm -rf $(VENV) build dist demo-out .mypy_cache .pytest_cache .ruff_cache
