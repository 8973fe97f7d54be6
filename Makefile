# `make demo`, `make test`, `make fuzz`, `make lint`, `make type`, `make bench`, `make docs`: each sets up .venv first, once.
# Needs Python 3.10 or newer: `make test PYTHON=python3.12` picks another one than python3.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Made anew when what is to be installed changes.
STAMP := $(VENV)/.vidnoise-installed
DOCS_STAMP := $(VENV)/.vidnoise-docs-installed

SAMPLE := samples/city-night.mp4
DEMO := demo/clean.mp4
DEMO_PICTURE := demo/before-after.png

.PHONY: help demo test test-all test-oldest test-newest fuzz lint type bench docs clean

help:
	@echo "make demo    denoise $(SAMPLE) and draw a before/after picture"
	@echo "make test    run the tests (make test-all: the slow ones too)"
	@echo "make test-oldest, make test-newest   with the oldest and newest releases of other libraries (TORCH=... pins PyTorch)"
	@echo "make fuzz    $(MUTANTS) damaged inputs of every kind; 'make fuzz MUTANTS=100000' more"
	@echo "make lint    ruff: errors and formatting"
	@echo "make type    pyright"
	@echo "make bench   speed of each tier on this machine, beside other filters: bench/speed.md"
	@echo "make docs    the guide and API reference as a site: build/docs/index.html"
	@echo "make clean   remove .venv, demo and caches"

$(STAMP): pyproject.toml constraints.txt $(wildcard vidnoise/kernels/native/*.[ch]) vidnoise/kernels/compile.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
		echo "vidnoise needs Python 3.10 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)."; \
		echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		echo "Could not make a virtual environment (on Debian and Ubuntu: apt install python3-venv)."; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(STAMP)
	@mkdir -p $(dir $(DEMO))
	$(BIN)/vidnoise $(SAMPLE) -o $(DEMO) -y
	@$(BIN)/python samples/before_after.py $(SAMPLE) $(DEMO) $(DEMO_PICTURE)
	@echo
	@echo "noisy:   $(SAMPLE)"
	@echo "clean:   $(DEMO)"
	@echo "picture: $(DEMO_PICTURE)"

PYTEST := $(BIN)/python -m pytest -q
# Two files at a time, whole, as their tests share what they set up. What runs against the clock
# comes afterwards, when nothing else does: it mostly waits, so that three at a time do not disturb each other.
TOGETHER := $(PYTEST) -n 2 --dist loadfile
CLOCKED := $(PYTEST) -n 3

test: $(STAMP)
	$(TOGETHER) -m "not slow and not realtime"
	$(CLOCKED) -m "not slow and realtime"

test-all: $(STAMP)
	$(TOGETHER) -m "not realtime"
	$(CLOCKED) -m realtime

test-oldest test-newest: test-%:
	PYTHON="$(PYTHON)" TORCH="$(TORCH)" .ci/releases $* test

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(STAMP)
	$(BIN)/pyright

MUTANTS ?= 20000

fuzz: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m faults.fuzz.run --mutants $(MUTANTS)

bench: $(STAMP)
	$(BIN)/vidnoise bench --peers -o bench/speed.json
	@cat bench/speed.md

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	@touch $@

# Warnings, broken links among them, are errors.
docs: $(DOCS_STAMP)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet -c docs . build/docs
	$(BIN)/vidnoise --man > build/docs/vidnoise.1
	@echo "build/docs/index.html"

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest demo bench build dist .pytest_cache .ruff_cache
