# The commands of the project; README.md explains them, .ci/run calls check and test.
SHELL := /bin/bash

# Real recordings beside the checkout, where there are some. Empty means: none.
ALPHAPULSE_RECORDINGS ?= $(wildcard ../shared/market)
ALPHAPULSE_RECORDINGS := $(if $(ALPHAPULSE_RECORDINGS),$(abspath $(ALPHAPULSE_RECORDINGS)))
export ALPHAPULSE_RECORDINGS

.PHONY: setup run test check bench exchange clean

setup:  ## make .venv from the lock; nothing to do the second time
	@scripts/setup.sh

run: setup  ## start the main job: make run ARGS="--source recording --speed max"
	@.venv/bin/alphapulse up $(ARGS)

test: setup  ## all tests: make test ARGS="tests/unit -k cache"
	@scripts/system-packages.sh
	@scripts/test.sh $(ARGS)

check: setup  ## lint, format and types
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy

bench:  ## make .venv-bench with the peers the benchmarks compare with
	@scripts/bench-setup.sh

exchange: setup  ## play a recording as a Binance on this machine: make exchange ARGS="--speed 5"
	@.venv/bin/python -m tests.exchange $(ARGS)

clean:  ## remove what the commands above made; user_data/ stays
	rm -rf .venv .venv-bench .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
