# What people type. Each target makes the environment that it needs in .venv, so that `make demo`
# and `make test` work on a fresh machine with Python 3.11 or newer.

PYTHON ?= python3
# Processes that run tests; auto is one for each core, at most eight.
JOBS ?= auto
# make bench BENCH=pca_fit MNIST=mnist.npz runs one script of benchmarks/; ARGS are its options.
BENCH ?=
MNIST ?=
ARGS ?=

VENV := .venv
RUN := $(VENV)/bin/python
PYTEST = $(RUN) -m pytest -n $(JOBS) --maxprocesses 8

# Pictures are saved rather than shown, and every process computes in one thread: the matrices of
# tests and examples are small, and more threads would mostly wait for each other.
export MPLBACKEND := Agg
export OMP_NUM_THREADS := 1

.PHONY: help demo test test-long lint dist docs bench ci clean

help:
	@echo "make demo       a first look: fits two models and draws what they have learned"
	@echo "make test       the tests, and the examples in docstrings"
	@echo "make test-long  the property tests that take longest, which make test leaves out"
	@echo "make lint       style and types, also of code that uses the installed package"
	@echo "make dist       the wheel and the source distribution, in dist/, and tests of the wheel"
	@echo "make docs       the documentation: runs its examples and writes docs/_build/html"
	@echo "make bench      how to run benchmarks"
	@echo "make ci         all that is checked before a change goes in: .ci/run"
	@echo "make clean      removes the environment and all that was built"

# Environments: the package itself, editable, with the extras that a target needs.
EXTRAS_demo := plots
EXTRAS_test := test,plots
EXTRAS_docs := test,plots,docs

$(VENV)/.demo $(VENV)/.test $(VENV)/.docs: $(VENV)/.%: pyproject.toml constraints.txt | $(RUN)
	$(RUN) -m pip install -c constraints.txt -e ".[$(EXTRAS_$*)]"
	@touch $@

$(RUN):
	$(PYTHON) -m venv $(VENV)

demo: $(VENV)/.demo
	$(RUN) examples/plot_first_look.py

test: $(VENV)/.test
	$(PYTEST)

test-long: $(VENV)/.test
	$(PYTEST) -m long

lint: $(VENV)/.test
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	cd tests && ../$(RUN) -m mypy --config-file ../setup.cfg --cache-dir ../.mypy_cache typed_code.py

# Both distributions, and tests of the installed wheel, which comes before the editable installation.
dist: $(VENV)/.test
	rm -rf dist
	$(RUN) -m hatchling build
	$(RUN) -m pip install --no-deps --target dist/installed dist/*.whl
	cd dist && PYTHONPATH=installed ../$(RUN) -m pytest -c ../pyproject.toml --rootdir .. \
		../tests/test_imports.py ../tests/test_ppca.py

docs: $(VENV)/.docs
	$(PYTEST) --doctest-glob="*.md" README.md docs
	$(RUN) -m sphinx -W --keep-going -j auto -b html docs docs/_build/html
	@echo "The start page is $(CURDIR)/docs/_build/html/index.html"

bench: $(VENV)/.test
ifeq ($(BENCH),)
	@ls benchmarks/[a-z]*.py
	@echo 'Run one by "make bench BENCH=pca_fit MNIST=mnist.npz"; MNIST is the path of the digits'
	@echo '(without it they are downloaded), ARGS holds other options, which each script names at'
	@echo 'its top. docs/benchmarks.md has the command of every table.'
else
	$(RUN) benchmarks/$(BENCH).py $(if $(MNIST),--mnist $(MNIST)) $(ARGS)
endif

ci:
	.ci/run

clean:
	rm -rf $(VENV) dist docs/_build docs/gallery figures .mypy_cache .pytest_cache .ruff_cache
