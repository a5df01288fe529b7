#!/usr/bin/env bash
# Resolve pyproject.toml (with infra/lock-overrides.txt) into requirements.lock: the full closure, every package pinned.
# The accelerator libraries of torch are left out on purpose: torch is installed first, with its own dependencies.
set -euo pipefail
cd "$(dirname "$0")/.."
uv pip compile pyproject.toml --quiet --python-version 3.11 \
  --extra cpu --extra recbole-deps --extra lora --extra images --extra redis --extra notebooks --extra docs --extra dev \
  --override infra/lock-overrides.txt --no-annotate --no-header --no-emit-package setuptools \
  --output-file requirements.lock.new "$@"
{
  echo "# The full closure for Python 3.11, made by 'make lock'. Install torch first with its dependencies, then the rest:"
  echo "#   pip install torch==2.13.0 -c requirements.lock && pip install --no-deps -r requirements.lock"
  grep -vE '^(nvidia-|cuda-|triton==)' requirements.lock.new
} > requirements.lock
rm requirements.lock.new
