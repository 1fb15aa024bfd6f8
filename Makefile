.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# "make demo ARGS='--epochs 1'", "make test ARGS='-k lift'"
ARGS ?=

export TF_CPP_MIN_LOG_LEVEL ?= 3
export CUDA_VISIBLE_DEVICES ?= -1

.PHONY: help
help: ## print this menu
	@echo "usage: make TARGET [ARGS='...']"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(STAMP) ## make .venv with everything that tests and demo need

$(STAMP): pyproject.toml constraints.txt
	@python=$$(command -v python3.11 || command -v python3) || \
	    { echo "error: no python3.11 and no python3 on the PATH" >&2; exit 1; }; \
	"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	    { echo "error: $$python is not Python 3.11, 3.12 or 3.13" >&2; exit 1; }; \
	[ -x $(BIN)/python ] || "$$python" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt hatchling editables
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation \
	    -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: demo
demo: $(STAMP) ## train, convert, quantise and check the MNIST LSTM; writes build/demo/
	$(BIN)/python examples/mnist_lstm.py --out build/demo $(ARGS)

.PHONY: test
test: $(STAMP) ## all tests, with ruff and mypy among them
	$(BIN)/python -m pytest $(ARGS)

.PHONY: check
check: $(STAMP) ## format, lint, types, tests, one after the other
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest --ignore=tests/test_static.py $(ARGS)

# "make hunt N=500 SEED=1000", "make hunt ARGS='--options 4'": each with 4 sets of other options
N ?= 100
SEED ?= 0

.PHONY: hunt
hunt: $(STAMP) ## N random recurrent models from SEED on; prints what is wrong or not fused
	@$(BIN)/python tests/scripts/hunt.py --number $(N) --seed $(SEED) $(ARGS) 2> >(grep -e Error -e '^  File' >&2)

.PHONY: matrix
matrix: $(STAMP) ## all TF1 functions × cells × options; writes docs/tf1-matrix.md
	@$(BIN)/python tests/scripts/tf1_matrix.py $(ARGS) 2> >(grep -e Error -e '^  File' >&2)

.PHONY: applications
applications: $(STAMP) ## ten Keras application architectures beside the stock converter
	@$(BIN)/python tests/keras_applications.py $(ARGS) 2> >(grep -e Error -e '^  File' >&2)

.PHONY: bench
bench: $(STAMP) ## measure speed beside peers; prints times, ratios and growth
	@for script in benchmarks/bench_*.py; do \
	    echo "== $$script"; $(BIN)/python "$$script" $(ARGS) 2> >(grep -v -e '^[IW]0' -e '^WARNING' >&2); \
	done

.PHONY: tables
tables: $(STAMP) ## write the pages of docs/ that are tables of the tests
	$(BIN)/python tests/keras_models.py > docs/keras-models.md
	$(BIN)/python tests/kernel_page.py > docs/kernels.md

.PHONY: format
format: $(STAMP) ## format the code, fix what ruff can fix
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

.PHONY: clean
clean: ## remove what was built (not .venv)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
