# `make start` runs the daemon on the sample registry, `make test` the tests: both make what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# the tests find uv, mcpd and mcpctl where a user would: on the PATH
WITH_PATH := PATH="$(CURDIR)/$(BIN):$$PATH"
JOBS ?= 3

.DEFAULT_GOAL := help
.PHONY: help compiled start test verify conformance check cover soak setup clean

help:
	@echo "make start    run the daemon on etc/mcpd.toml in the foreground"
	@echo "make test     lint, types, imports, unit and end-to-end tests"
	@echo "make verify   the long suites"
	@echo "make conformance   the official conformance suite, directly and through mcpd"
	@echo "make check    lint, types and imports alone"
	@echo "make soak     ten minutes of 50 servers and 100 clients while a child is killed every second"
	@echo "make cover    the tests with branch coverage"
	@echo "make clean    remove the environment"

$(VENV)/runtime: pyproject.toml constraints.txt
	$(PYTHON) scripts/check_python.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "fetching what mcpd needs into $(VENV): once, about a minute"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	$(BIN)/python -m compileall -q supervisor workers
	@touch $@

$(VENV)/dev: $(VENV)/runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# the byte code of an editable install is nobody's to make; where Python may not write it (PYTHONDONTWRITEBYTECODE),
# every start would compile all of mcpd
compiled: $(VENV)/runtime
	@$(BIN)/python -m compileall -q supervisor workers

start: compiled
	@scripts/setup run
	@exec $(BIN)/mcpd start --config etc/mcpd.toml

setup: $(VENV)/dev compiled
	@scripts/setup test
	@scripts/peers

check: $(VENV)/dev
	@scripts/check

test: setup check
	$(WITH_PATH) $(BIN)/pytest -n $(JOBS) -m "not long" tests

verify: setup
	@scripts/setup verify
	@scripts/peers conformance
	$(WITH_PATH) $(BIN)/pytest -m long tests

conformance: $(VENV)/dev
	@scripts/setup test
	@scripts/peers conformance
	@PYTHONPATH=tests $(BIN)/python -m contract.conformance $(BLOCKS)

soak: $(VENV)/dev
	@scripts/setup run
	@scripts/soak $(SOAK)

cover: setup
	$(BIN)/coverage erase
	$(WITH_PATH) $(BIN)/pytest -n $(JOBS) -m "not long" --cov --cov-report=term:skip-covered tests

clean:
	rm -rf $(VENV)
