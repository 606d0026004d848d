# `make help` lists the verbs.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
GUARDRAIL_VENV ?= .venv-guardrails
# torch is installed first and pinned: any later requirement that it meets then leaves it alone.
TORCH ?= torch==2.13.0
# The full guardrails need torchvision, and it the torch that it was built with.
TORCHVISION ?= torch==2.14.1 torchvision==0.29.1

# Versions that are known to work together; `make setup LOCK=` takes the newest of everything instead.
LOCK ?= --constraint constraints.txt
# Where `make test-fresh` and its like install from nothing.
FRESH_VENV ?= .venv-fresh

CHECKPOINTS ?= checkpoints/tiny
PROFILE ?= cpu

.PHONY: help system setup lock demo test test-slow test-guardrails test-fresh test-newest test-client check format engines \
	image serve generate bench clean

help:  ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

system:  ## install the system packages that are needed (Debian, Ubuntu; uses sudo unless root)
	@deploy/install-system-packages

setup: $(VENV)/.installed  ## make .venv with everything for laptops: server, export, tests

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet $(LOCK) "$(TORCH)"
	$(BIN)/pip install --quiet $(LOCK) --editable ".[serve,export,local,dev]"
	@touch $@

# Resolved with TORCH, but without naming it and what comes with it: which build of torch is installed, for a CPU or for
# one CUDA or another, is the machine's affair, and each build asks for its own libraries.
lock: setup  ## renew constraints.txt: the newest versions that pyproject.toml allows, for Python 3.11 and 3.12
	$(BIN)/pip install --quiet "uv>=0.9"
	set -o pipefail; $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-annotate --no-header \
	  --constraint <(echo "$(TORCH)") pyproject.toml \
	  | grep -vE '^(torch|torchvision|triton|cuda-[a-z0-9-]+|nvidia-(cu|nccl|nv)[a-z0-9-]*)==' > constraints.new
	{ echo "# Made by \`make lock\`."; cat constraints.new; } > constraints.txt
	rm constraints.new

checkpoints/tiny/.weights: | setup
	$(BIN)/cosmos-triton init-random --size tiny --checkpoint-dir checkpoints/tiny
	@touch $@

demo: checkpoints/tiny/.weights  ## a clip through a real tritonserver: demo/world.mp4 and demo/world.png
	$(BIN)/cosmos-triton export --checkpoint-dir checkpoints/tiny --onnx-only --ensemble cosmos_base
	$(BIN)/cosmos-triton demo --checkpoint-dir checkpoints/tiny --output-folder demo

test: setup  ## all tests that need no GPU, a real tritonserver included
	$(BIN)/pytest -m "not gpu and not slow"

test-slow: setup  ## the slow tests too
	$(BIN)/pytest -m "not gpu"

$(GUARDRAIL_VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(GUARDRAIL_VENV)
	$(GUARDRAIL_VENV)/bin/pip install --quiet --upgrade pip
	$(GUARDRAIL_VENV)/bin/pip install --quiet $(LOCK) $(TORCHVISION)
	$(GUARDRAIL_VENV)/bin/pip install --quiet $(LOCK) --editable ".[serve,guardrail,dev]"
	@touch $@

test-guardrails: $(GUARDRAIL_VENV)/.installed  ## the full guardrails' tests, in an environment of 7 GB; records the result
	$(GUARDRAIL_VENV)/bin/python -m evaluation.full_posture tests/guardrails/full_posture.json

# What another Python can break: decoding, the client, the checks around Triton, and worlds through a real tritonserver.
FRESH_TESTS := tests/media tests/client tests/guardrails tests/server tests/contract tests/e2e/test_worlds.py

test-fresh:  ## install from nothing and run what another Python can break: make test-fresh PYTHON=python3.12
	@$(PYTHON) --version || { echo "$(PYTHON) is not on this machine: make test-fresh did not run"; exit 1; }
	rm -rf $(FRESH_VENV)
	$(MAKE) setup VENV=$(FRESH_VENV)
	$(FRESH_VENV)/bin/pytest -m "not gpu and not slow" $(FRESH_TESTS)

test-newest:  ## test-fresh with the newest of everything, torch too; to be run by a schedule, it may fail without a change
	$(MAKE) test-fresh LOCK= TORCH=torch

# Without a Triton server; test_client_contract.py holds the client against the engine, which needs torch.
test-client:  ## the client alone, installed from nothing without the lock: make test-client PYTHON=python3.13
	@$(PYTHON) --version || { echo "$(PYTHON) is not on this machine: make test-client did not run"; exit 1; }
	rm -rf $(FRESH_VENV)-client
	$(PYTHON) -m venv $(FRESH_VENV)-client
	$(FRESH_VENV)-client/bin/pip install --quiet --upgrade pip
	$(FRESH_VENV)-client/bin/pip install --quiet . "pytest>=8"
	$(FRESH_VENV)-client/bin/cosmos-client --help > /dev/null
	$(FRESH_VENV)-client/bin/pytest -m "not triton" --ignore tests/client/test_client_contract.py tests/client

check: setup  ## ruff, mypy --strict, and the layers (import-linter)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

engines: setup  ## build the TensorRT plans on the GPU that will run them: make engines CHECKPOINTS=checkpoints/4B
	$(BIN)/cosmos-triton export --checkpoint-dir $(CHECKPOINTS) --model-repository model_repository

image:  ## build the production image (needs Docker)
	docker build -f Dockerfile.triton -t cosmos-triton .

serve: checkpoints/tiny/.weights  ## run the server: make serve CHECKPOINTS=checkpoints/tiny PROFILE=cpu
ifeq ($(PROFILE),cpu)
	$(BIN)/cosmos-triton export --checkpoint-dir $(CHECKPOINTS) --onnx-only
endif
	$(BIN)/cosmos-triton serve --checkpoint-dir $(CHECKPOINTS) --profile $(PROFILE)

generate: setup  ## send one clip to a running server: make generate INPUT=clip.mp4 OUTPUT=world.mp4
	$(BIN)/cosmos-client generate --input $(INPUT) --output $(OUTPUT)

clean:  ## remove what the verbs made, .venv excepted
	rm -rf demo checkpoints/tiny .pytest_cache .mypy_cache .ruff_cache

# perf_analyzer 2.60 needs glibc 2.38; where that is missing, the binary that tritonclient 2.51 carries does as well.
$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/pip install --quiet $(LOCK) --editable ".[serve,export,local,dev,bench]"
	$(BIN)/pip install --quiet "perf-analyzer>=2.60" 2>/dev/null || { \
	  $(BIN)/pip install --quiet --no-deps --target $(VENV)/tritonclient-2.51 tritonclient==2.51.0 && \
	  ln -sf ../tritonclient-2.51/bin/perf_analyzer $(BIN)/perf_analyzer; }
	@touch $@

bench: $(VENV)/.bench checkpoints/tiny/.weights  ## perf_analyzer against the tiny models on the CPU: benchmarks/results/
	$(BIN)/cosmos-triton export --checkpoint-dir checkpoints/tiny --onnx-only
	$(BIN)/python -m benchmarks.serve --checkpoint-dir checkpoints/tiny --profile cpu --name serve-tiny-cpu
