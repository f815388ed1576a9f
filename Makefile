# Every target does its own set-up; a second call finds its stamp and starts at once.
#   make test PYTHON=python3.12     another interpreter
#   make test TORCH_INDEX=          torch from the default index (CUDA on Linux)
#   make test CONSTRAINTS=constraints-lowest.txt VENV=.venv-lowest  lowest versions

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TEST_EXTRAS ?= test,plot,export
CONSTRAINTS ?= constraints.txt
# Test files go to so many processes.
WORKERS ?= 2
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS)
PINS := pyproject.toml $(CONSTRAINTS)

# Small networks run fastest on one thread; say OMP_NUM_THREADS=4 to have four.
export OMP_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg

.PHONY: help test slow demo lint docs bench clean

help:
	@echo "make test | slow | demo | lint | docs | bench | clean"

test: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

# Exit status 5 says that no test is marked slow, which is no failure.
slow: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -q -m slow $(PYTEST_ARGS) || [ $$? -eq 5 ]

demo: $(VENV)/.stamp-test
	$(BIN)/python examples/plot_quickstart.py
	@echo "The pictures are in examples/output/"

lint: $(VENV)/.stamp-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

docs: $(VENV)/.stamp-docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

bench: $(VENV)/.stamp-test
	$(BIN)/python benchmarks/speed.py

clean:
	rm -rf docs/_build docs/gallery docs/generated docs/how_good.md docs/sg_execution_times.rst \
		examples/output .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find skvae tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/pyvenv.cfg:
	$(PYTHON) -c "import sys; sys.exit(None if sys.version_info >= (3, 11) else 'skvae needs Python 3.11 or newer: make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)

# On Linux the default index brings torch with CUDA, several GB of it, so the CPU index
# comes first where it answers; torch's own needs follow from the default index.
$(VENV)/.stamp-torch: $(CONSTRAINTS) | $(VENV)/pyvenv.cfg
	@if [ -n "$(TORCH_INDEX)" ] && $(BIN)/python -c "import urllib.request; \
	urllib.request.urlopen('$(TORCH_INDEX)/torch/', timeout=5)" 2>/dev/null; then \
		echo "torch from $(TORCH_INDEX)"; \
		$(PIP) --no-deps --index-url $(TORCH_INDEX) torch || $(PIP) torch; \
	else \
		echo "torch from pip's default index"; \
		$(PIP) torch; \
	fi
	@touch $@

$(VENV)/.stamp-test: $(PINS) $(VENV)/.stamp-torch
	$(PIP) -e '.[$(TEST_EXTRAS)]'
	@touch $@

$(VENV)/.stamp-dev: $(PINS) $(VENV)/.stamp-torch
	$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/.stamp-docs: $(PINS) $(VENV)/.stamp-torch
	$(PIP) -e '.[docs,$(TEST_EXTRAS)]'
	@touch $@
