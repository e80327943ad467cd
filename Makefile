# The tasks of everyday work. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The first that is new enough and really runs (a shim may only pretend to) looks whether another one in PATH is quicker.
PYTHON ?= $(shell for candidate in python3.12 python3.11 python3 python3.13 python3.14 python; do \
	if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	then "$$candidate" -I coordinator/interpreters.py; break; fi; done)

# Assertions stay on, and `python -m` finds the clone.
unexport PYTHONOPTIMIZE PYTHONSAFEPATH

VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --disable-pip-version-check
# Of two `make` in one clone the second waits: one would clear what the other fills. Let go as the recipe ends, however.
ALONE := mkdir -p var; exec 9>var/environment.lock; if command -v flock >/dev/null && ! flock -n 9; \
	then echo "another make is at $(VENV) in this clone: waiting for it" >&2; flock 9; fi
PYTEST ?=
# A process for each core, and a file of tests stays with one of them (tests/conftest.py).
SIDE_BY_SIDE := -n logical --maxprocesses 8 --no-loadscope-reorder
PROVE_DIRECTORY := var/prove
PROVE_SEEDS := 1-20000
PROVE_SLICE := 500
BENCH ?=

.PHONY: help up install setup compile test check prove bench bench-setup fmt tools

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Five programs start at once: none has to read the sources anew where the environment forbids Python to write bytecode.
up: $(VENV)/.runtime compiled ## set up what is missing and run Conclave; Ctrl-C stops it
	@$(RUN) -m compileall -qq coordinator dashboard || true
	@exec $(RUN) manage.py up

install: $(VENV)/.runtime compiled ## set up what it runs on and start nothing, for a service or a machine that only hosts a node

setup: $(VENV)/.development ## the virtual environment, with all that working on Conclave needs

compile: $(VENV)/.compiler ## what nodes and clients run as native code, which `make up` does too where it can
	@exec $(RUN) -m coordinator.compiling

test: $(VENV)/.development tools ## every test but the long proofs, on real processes and in a real browser
	@COMPILED="$(COMPILED)" SIDE_BY_SIDE="$(SIDE_BY_SIDE)" exec tests/all.sh $(RUN) $(PYTEST)

check: $(VENV)/.development ## what every change must pass: format, lint, types, import contracts, unit tests
	@SIDE_BY_SIDE="$(SIDE_BY_SIDE)" exec tests/check.sh $(RUN) $(PYTEST)

prove: $(VENV)/.development compiled ## the long proofs; goes on where it was stopped
	@exec tests/prove.sh $(RUN) $(PROVE_DIRECTORY) $(PROVE_SEEDS) $(PROVE_SLICE)

bench: $(VENV)/.development compiled ## Conclave beside its peers, about 40 minutes; less with BENCH="--peers conclave,etcd --rounds 1"
	@echo "== bench.core"; $(RUN) -m bench.core
	@echo "== bench.compare"; exec $(RUN) -m bench.compare $(BENCH)

bench-setup: $(VENV)/.development ## install what `make bench` compares with: etcd, ZooKeeper, Redis, their Python clients
	@exec bench/setup.sh $(RUN)

fmt: $(VENV)/.development ## format the code, and mend what can be mended by itself
	$(RUN) -m ruff check --fix-only .
	$(RUN) -m ruff format .

# Nodes run as well without; COMPILED=no leaves it out.
COMPILED ?= yes
.PHONY: compiled
ifeq ($(COMPILED),no)
compiled:
else
compiled: $(VENV)/.compiler
	@$(RUN) -m coordinator.compiling --if-possible
endif

tools:
	@tests/tools.sh

# One that was cut off while it was made has no pip yet, and nothing installed: it is made anew.
ifeq ($(wildcard $(VENV)/bin/pip $(VENV)/.runtime),)
.PHONY: $(VENV)/bin/python
endif

$(VENV)/bin/python:
	@$(ALONE); if [ -x $(RUN) ] && $(RUN) -m pip --version >/dev/null 2>&1; then exit 0; fi; \
	python="$(PYTHON)"; if [ -z "$$python" ]; then \
	echo "Conclave needs Python 3.11 or newer with its venv module (Debian and Ubuntu: apt-get install python3 python3-venv)." >&2; \
	echo "If you have one under another name: make PYTHON=/path/to/python ..." >&2; exit 1; fi; \
	echo "making $(VENV) with $$("$$python" --version), $$python"; \
	"$$python" -m venv --clear $(VENV)

$(VENV)/.runtime: requirements.txt | $(VENV)/bin/python
	@echo "installing what Conclave runs on ($$(grep -c == $<) packages)"
	@$(ALONE); $(PIP) -r $<
	@touch $@

$(VENV)/.compiler: requirements-compile.txt | $(VENV)/.runtime
	@echo "installing what compiling needs ($$(grep -c == $<) packages)"
	@$(ALONE); $(PIP) -r $<
	@touch $@

$(VENV)/.development: requirements-dev.txt requirements-compile.txt requirements.txt | $(VENV)/bin/python
	@echo "installing what working on Conclave needs ($$(cat $^ | grep -c ==) packages)"
	@$(ALONE); $(PIP) -r $<
	@touch $@ $(VENV)/.runtime $(VENV)/.compiler
