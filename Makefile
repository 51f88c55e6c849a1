# make serve: run the gateway.  make test: install the rest and run every test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# A hash-checked lock is complete: nothing may be resolved beside it.
LOCKED := --no-deps --require-hashes -r

.PHONY: serve chat test check lint types bench-cpu bench-frontend bench-proxy bench-autoscaling chromium node services tools schemathesis soak explore lock clean

serve: $(VENV)/.serve
	$(BIN)/llm-gateway serve

chat: $(VENV)/.serve
	$(BIN)/llm-gateway chat

test: $(VENV)/.test chromium node services tools
	$(BIN)/python -m pytest

# The page is tested in a real browser. Where none can be installed, those tests say so and skip.
chromium:
	@command -v chromium chromium-browser google-chrome > /dev/null || { \
		[ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium; } > /dev/null 2>&1 || true

# Redis, PostgreSQL, Prometheus and Slurm are real in the tests, which start and stop them
# themselves. Where one cannot be installed, its tests say so and skip.
SERVICES := redis-server postgresql prometheus slurmctld slurmd
services:
	@{ command -v redis-server && ls /usr/lib/postgresql/*/bin/initdb && command -v promtool && \
		PATH="$$PATH:/usr/sbin" command -v slurmctld && PATH="$$PATH:/usr/sbin" command -v slurmd; } > /dev/null 2>&1 || { \
		[ "$$(id -u)" = 0 ] && command -v apt-get && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(SERVICES); } > /dev/null 2>&1 || true

# OpenAI's SDK for Node is tested as well, with Node.js from PyPI where the machine has none that is
# new enough. Where one of the two cannot be installed, those tests say so and skip.
node: $(VENV)/bin/python
	@[ tests/node/node_modules/.package-lock.json -nt tests/node/package-lock.json ] || { \
		export PATH="$(abspath $(BIN)):$$PATH"; \
		{ node -e 'process.exit(process.versions.node.split(".")[0] < 20)' && npm --version || \
		$(PIP) install $(LOCKED) requirements/node.txt; } && \
		cd tests/node && npm ci --no-audit --no-fund; } > /dev/null 2>&1 || true

# Tools whose pins collide with ours (llmcompressor, OpenVINO, Triton) run in environments of their
# own. Where one cannot be installed, its tests say so and skip.
tools: $(VENV)/.test
	@$(BIN)/python -m engine.environments > /dev/null 2>&1 || true

# Over ten thousand cases, those at the bounds of each field among them; `make test` runs 2,450.
schemathesis: $(VENV)/.test
	SCHEMATHESIS_EXAMPLES=600 SCHEMATHESIS_COVERAGE=1 $(BIN)/python -m pytest tests/gateway/test_schemathesis.py

# The suite does one round of each; here they go on: SOAK_S seconds under load and kills, and
# ROUNDS times new random examples for every property and state machine.
SOAK_S ?= 3600
ROUNDS ?= 20
PROPERTIES := tests/admission tests/limits tests/ledger tests/routing tests/telemetry
soak: $(VENV)/.test services
	SOAK_S=$(SOAK_S) $(BIN)/python -m pytest tests/soak

explore: $(VENV)/.test services
	for round in $$(seq $(ROUNDS)); do \
		HYPOTHESIS_PROFILE=explore $(BIN)/python -m pytest -q $(PROPERTIES) -m hypothesis || exit 1; done

check: $(VENV)/.test lint types test

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

bench-cpu: $(VENV)/.test
	$(BIN)/python -m benchmarks.cpu

bench-frontend: $(VENV)/.test
	$(BIN)/python -m benchmarks.frontend

bench-proxy: $(VENV)/.serve
	$(BIN)/python -m benchmarks.proxy

bench-autoscaling: $(VENV)/.serve services
	$(BIN)/python -m benchmarks.autoscaling --svg docs/deploy/autoscaling.svg

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV) || { echo "On Debian and Ubuntu: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }

$(VENV)/.serve: $(VENV)/bin/python requirements/serve.txt pyproject.toml
	$(PIP) install $(LOCKED) requirements/serve.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

# torch comes first and on its own: which build fits (CPU or CUDA) is the machine's choice.
$(VENV)/.test: $(VENV)/.serve requirements/dev.txt
	$(PIP) install torch==2.13.0
	$(PIP) install $(LOCKED) requirements/dev.txt
	touch $@

UV := $(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header
# vLLM asks for these, serves text without them, and PyPI's builds of them break beside CPU torch.
NOT_LOCKED := $(foreach p,torch torchvision torchaudio torchcodec,--no-emit-package $(p))

lock: $(VENV)/.test
	$(UV) --python-version 3.11 --python-platform x86_64-manylinux_2_28 --extra dev --extra convert \
		pyproject.toml requirements/build.in requirements/test.in $(NOT_LOCKED) --output-file requirements/dev.txt
	$(UV) --python-version 3.11 --python-platform x86_64-manylinux_2_28 --constraint requirements/dev.txt \
		pyproject.toml requirements/build.in --output-file requirements/serve.txt
	$(UV) --python-version 3.11 --python-platform x86_64-manylinux_2_28 --constraint requirements/dev.txt \
		--extra redis --extra postgres --extra otel \
		pyproject.toml requirements/build.in --output-file deploy/docker/requirements.txt
	for tool in $(basename $(notdir $(wildcard engine/environments/*.in))); do \
		$(UV) --python-version 3.11 --python-platform x86_64-manylinux_2_35 $(NOT_LOCKED) \
			engine/environments/$$tool.in --output-file engine/environments/$$tool.txt || exit 1; done

clean:
	rm -rf $(VENV) build *.egg-info
