# `make demo` and `make test` work from a fresh clone with Python 3.11 to 3.13 and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test quick heavy lint format stubs bench chains cloud faults fuzz recipes onnx test-arm64 test-armhf clean

setup: $(STAMP)

# --no-compile: byte code is made for what is imported, not for 3 GB of what is not.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/hybridge demo --out demo-out --overwrite
	$(BIN)/hybridge demo sign --out demo-out/signs --overwrite

# Two processes: one imports TensorFlow and runs all tests that need it.
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadgroup

test: $(STAMP) lint
	$(PYTEST) -m 'not heavy'

quick: $(STAMP) lint
	$(PYTEST) -m 'not slow and not heavy'

# What takes minutes: searches with training, Ray clusters, every technique on many models.
heavy: $(STAMP)
	$(BIN)/python -m pytest -q -m heavy --timeout 900

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
	$(BIN)/python -m benchmarks.conversion.tiny_models
	$(BIN)/python -m benchmarks.conversion.int8_quality
	$(BIN)/python -m benchmarks.conversion.cost

# Chains beside RapidOCR and MediaPipe, streams, and a long run with hot swaps; HYBRIDGE_DATA as above.
chains: $(STAMP)
	$(BIN)/python -m benchmarks.chain_overhead
	$(BIN)/python -m benchmarks.chain_vs_rapidocr
	$(BIN)/python -m benchmarks.chain_vs_mediapipe
	$(BIN)/python -m benchmarks.stream_throughput
	$(BIN)/python -m benchmarks.soak
	$(BIN)/python -m benchmarks.footprint

# The cloud fallback: what asking adds, beside MLServer and Triton, thresholds on Fashion-MNIST, the outbox; HYBRIDGE_DATA as
# above. The networks are trained on first use.
cloud: $(STAMP)
	$(BIN)/python -m benchmarks.fallback_overhead
	$(BIN)/python -m benchmarks.serving_vs_peers
	$(BIN)/python -m benchmarks.fallback_fit
	$(BIN)/python -m benchmarks.outbox --kills 500

# What attackers, broken clients, networks and disks do, over real sockets; writes the table in docs/faults.md.
faults: $(STAMP)
	HYBRIDGE_FAULT_TABLE=docs/faults.md $(BIN)/python -m pytest -q tests/cloud_fallback/faults tests/cloud_fallback/client tests/cloud_fallback/outbox

fuzz: $(STAMP)
	$(BIN)/python -m tests.cloud_fallback.fuzz --seconds 60

# The runtime's tests in a Debian root of a device's architecture, under qemu; they say what they need.
test-arm64: $(STAMP)
	sh tests/devices/device.sh arm64 $(BIN)/python

test-armhf: $(STAMP)
	sh tests/devices/device.sh armhf $(BIN)/python

# The table of recipes in docs/, and the search beside plain recipes: an hour on two cores.
recipes: $(STAMP)
	$(BIN)/python -m benchmarks.conversion.recipe_table
	$(BIN)/python -m benchmarks.conversion.recipe_search

# The pages on ONNX in docs/: the conformance suite, PP-OCR beside onnxruntime, models of other packages.
onnx: $(STAMP)
	$(BIN)/python -m benchmarks.onnx_conformance
	$(BIN)/python -m benchmarks.onnx_ocr
	$(BIN)/python -m benchmarks.onnx_zoo

clean:
	rm -rf $(VENV) build dist demo-out .mypy_cache .pytest_cache .ruff_cache
