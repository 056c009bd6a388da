# make demo       distils the embedded digits
# make test       runs the tests but for the slow ones, in JOBS processes; make test-slow runs those, make test-all both
# make check      lint, format, types
# make notebooks  runs the notebooks and writes what they show into them

# Compiling takes most of the time of the tests: those that are not slow run on code that LLVM has optimized little.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-all check notebooks clean

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "kipjax needs Python 3.11 or newer; run make PYTHON=python3.12 (found: $$($(PYTHON) --version))"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --group lean
	$(BIN)/python -m pip install --quiet --no-deps neural-tangents --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

demo: $(VENV)/installed
	$(BIN)/python -m experiments.distill --config=configs/kip/digits.py --workdir=runs/demo --overwrite

test: $(VENV)/installed-dev
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow"

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n $(JOBS) -m slow

test-all: test test-slow

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

notebooks: $(VENV)/installed-dev
	PYTHONPATH=. $(BIN)/python colab/run.py

clean:
	rm -rf $(VENV) runs .jax_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
