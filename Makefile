# Two commands do everything on a fresh machine: `make quickstart` and `make test`.

PYTHON ?= python3
QUANTIZATION ?= none
RUNS ?= runs
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The CPU list unless an NVIDIA driver answers; say `make install LIST=cuda` to choose.
LIST ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)

.PHONY: install quickstart test lint format lock check-requirements bench-peers clean
.DEFAULT_GOAL := help

help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 22

# One stamp for what runs the product, one for what tests it: quickstart does not wait for pytest.
$(VENV)/installed: requirements/$(LIST).txt pyproject.toml scripts/new-environment.sh
	PYTHON="$(PYTHON)" scripts/new-environment.sh $(VENV)
	$(PIP) install --quiet --no-deps -r requirements/$(LIST).txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements/dev.txt
	$(PIP) install --quiet --no-deps -r requirements/dev.txt
	@touch $@

install: $(VENV)/installed  ## Make the environment in .venv

quickstart: $(VENV)/installed  ## Fine-tune, merge, verify and serve a 135M model on this machine
	$(BIN)/llmkit quickstart model.quantization=$(QUANTIZATION) --runs $(RUNS)

test: $(VENV)/installed-dev  ## Run the whole test suite
	$(BIN)/python -m pytest $(TESTS)

lint: $(VENV)/installed-dev  ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/installed-dev  ## Rewrite the code as the formatter wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(VENV)/installed  ## Resolve requirements/*.in again
	$(BIN)/python scripts/lock.py

check-requirements: $(VENV)/installed  ## Ask pip whether the CUDA list is one consistent set
	$(BIN)/python scripts/lock.py --check

bench-peers: $(VENV)/installed  ## Make .bench-venv with the peers that benchmarks measure against
	PYTHON="$(PYTHON)" scripts/new-environment.sh .bench-venv
	.bench-venv/bin/python -m pip install --quiet --no-deps -r requirements/$(LIST).txt
	@touch .bench-venv/installed

clean:  ## Remove the environments and the caches, not the runs
	rm -rf $(VENV) .bench-venv .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
