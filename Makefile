# What people type. Recipes hold the commands of .ci/run, which works without make, for the
# environment that the second command block of README.md makes; activate it first.

PYTHON ?= python
# make bench BENCH=pca_fit MNIST=mnist.npz runs one script of benchmarks/; ARGS are its options.
BENCH ?=
MNIST ?=
ARGS ?=

.PHONY: help demo test lint docs bench ci

# No display; and one thread, as with small matrices more of them mostly wait for each other.
demo test docs: export MPLBACKEND = Agg
demo test docs: export OMP_NUM_THREADS = 1

help:
	@echo "make demo   the scripts of examples/"
	@echo "make test   the tests, and the examples in docstrings"
	@echo "make lint   style and types"
	@echo "make docs   the examples of README.md and of the guides in docs/"
	@echo "make bench  how to run benchmarks"
	@echo "make ci     all that is checked before a change goes in: .ci/run"

demo:
	set -e; for example in examples/plot_*.py; do $(PYTHON) -W error "$$example"; done

test:
	$(PYTHON) -m pytest -n 2

lint:
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

docs:
	$(PYTHON) -m pytest -n 2 --doctest-glob="*.md" README.md docs/*.md

bench:
ifeq ($(BENCH),)
	@ls benchmarks/[a-z]*.py
	@echo 'Run one by "make bench BENCH=pca_fit MNIST=mnist.npz"; MNIST is the path of the digits'
	@echo '(without it they are downloaded), ARGS holds other options, which each script names at'
	@echo 'its top. docs/benchmarks.md has the command of every table.'
else
	$(PYTHON) benchmarks/$(BENCH).py $(if $(MNIST),--mnist $(MNIST)) $(ARGS)
endif

ci:
	.ci/run
