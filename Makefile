# Two commands do everything: `make demo` and `make test`. Both make their own environment first, once.
PYTHON ?= python3
VENV ?= .venv
# Where the CPU build of torch is; without it pip takes what its own index offers. TORCH_INDEX= for that, e.g. for CUDA.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: help demo test check lint types install notebook bench clean
.DEFAULT_GOAL := help

help: ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

demo: install ## the main job in a few minutes: trajectories -> SDN -> reduction -> SpikingSSM on digits
	$(PY) -m spikingssm demo

test: install ## the tests
	$(PY) -m pytest -n auto

check: lint types test ## what CI runs: format, lint, types, tests

lint: install ## ruff, format and rules
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

types: install ## mypy, strict for sdn
	$(PY) -m mypy

install: $(STAMP) ## the environment in .venv, with the pinned torch first

# torch alone and pinned first: a later requirement then finds it installed and does not fetch another build. An index
# that cannot be reached is skipped with a warning.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"error: Python 3.11 or newer is needed, $(PYTHON) is {v[0]}.{v[1]}; use make PYTHON=python3.11")'
	@echo "== installing into $(VENV) (once; a few minutes)"
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX) --retries 1 --timeout 15) "$$(grep '^torch==' constraints.txt)"
	$(PY) -m pip install --quiet -c constraints.txt -e ".[train,data,notebook,dev]"
	@touch $(STAMP)

notebook: install ## run convert.ipynb top to bottom on the run that `make demo` leaves
	SDN_RUN=demo/sdn $(PY) -m jupyter nbconvert --to notebook --execute convert.ipynb --output-dir demo --output convert.ipynb

bench: install ## speeds of the solvers, to benchmarks/results
	$(PY) -m benchmarks

clean: ## remove the environment and what demo and tests left
	rm -rf $(VENV) demo .pytest_cache .ruff_cache .mypy_cache .hypothesis
