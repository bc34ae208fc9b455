# Two commands do everything: `make demo` and `make test`. Both make their own environment first, once.
PYTHON ?= python3
VENV ?= .venv
# Where the CPU build of torch is; without it pip takes what its own index offers. TORCH_INDEX= for that, e.g. for CUDA.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed

.PHONY: help demo test test-other check lint types install develop notebook docs bench bench-quick bench-experiments bench-peers test-peers gpu-code fuzz kill studies zoo clean
.DEFAULT_GOAL := help

help: ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

demo: install ## the main job in a few minutes: trajectories -> SDN -> reduction -> SpikingSSM on digits
	$(PY) -m spikingssm demo

test: develop ## the tests
	$(PY) -m pytest -n auto --dist loadfile

# KILL_OPTIONS such as "--seed 1" or "--kills 24 --jobs sdn".
KILL_OPTIONS ?=

kill: develop ## 100 kills at random moments, each compared with a run that nobody stopped (about six minutes)
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(PY) -W ignore -m kill $(KILL_OPTIONS)

check: lint types test ## what CI runs: format, lint, types, tests

lint: develop ## ruff, format and rules
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

types: develop ## mypy, strict for sdn and spikingssm
	$(PY) -m mypy

install: $(STAMP) ## the environment in .venv, with the pinned torch first

develop: $(DEVELOPED) ## and what the tests need, Triton among it (1 GB)

# torch alone and pinned first: a later requirement then finds it installed and does not fetch another build. An index
# that cannot be reached is skipped with a warning.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"error: Python 3.11 or newer is needed, $(PYTHON) is {v[0]}.{v[1]}; use make PYTHON=python3.11")'
	@echo "== installing into $(VENV) (once; a few minutes)"
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX) --retries 1 --timeout 15) "$$(grep '^torch==' constraints.txt)"
	$(PY) -m pip install --quiet -c constraints.txt -e ".[train,data,notebook,sweep]"
	@touch $(STAMP)

$(DEVELOPED): $(STAMP)
	$(PY) -m pip install --quiet -c constraints.txt -e ".[train,data,notebook,sweep,export,docs,dev]"
	@touch $(DEVELOPED)

# The tests of neurons, operators and models in an environment of its own, with another torch or Python than the pinned:
# make test-other TORCH=2.6.0 OTHER_PYTHON=python3.12
TORCH ?= $(shell sed -n 's/.*"torch>=\([0-9.]*\)".*/\1.0/p' pyproject.toml)
OTHER_PYTHON ?= $(PYTHON)
OTHER ?= .venv-other

test-other: ## the tests of neurons and models with the oldest torch that pyproject.toml allows; downloads 3 GB
	$(OTHER_PYTHON) -m venv $(OTHER)
	@echo '*' > $(OTHER)/.gitignore
	$(OTHER)/bin/python -m pip install --quiet "torch==$(TORCH)"
	$(OTHER)/bin/python -m pip install --quiet -e ".[train,data,dev]"
	$(OTHER)/bin/python -m pytest tests/sdn/dynamics tests/sdn/neuron tests/sdn/ops/test_operators.py tests/sdn/solvers \
		tests/spikingssm/models

notebook: install ## run convert.ipynb top to bottom on the run that `make demo` leaves
	SDN_RUN=demo/sdn $(PY) -m jupyter nbconvert --to notebook --execute convert.ipynb --output-dir demo --output convert.ipynb

docs: $(VENV)/.docs ## the site, to build/site; it needs no network to be read, and any warning ends the build
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

$(VENV)/.docs: $(STAMP)
	$(PY) -m pip install --quiet -c constraints.txt -e ".[docs]"
	@touch $@

# Benchmarks run in the peers' environment where there is one, so that other libraries take their turns with ours.
PEERS ?= .venv-peers
PEERS_STAMP := $(PEERS)/.installed
BENCH_PY = $(if $(wildcard $(PEERS_STAMP)),$(PEERS)/bin/python,$(PY))
SUITES ?=

bench: install ## speeds and memory, to benchmarks/results and docs/benchmarks.md; SUITES="neurons scans" for some
	$(BENCH_PY) -m benchmarks $(SUITES)
	$(BENCH_PY) -m benchmarks.page

bench-quick: install ## a subset of it in about three minutes; writes nothing
	$(BENCH_PY) -m benchmarks --quick $(SUITES)

bench-experiments: install ## one training step of every experiment at full size, to benchmarks/results (about a quarter of an hour)
	$(PY) -m benchmarks experiments

bench-peers: $(PEERS_STAMP) ## an environment of its own with SpikingJelly, snnTorch, norse, sinabs and JAX, for bench

test-peers: $(PEERS_STAMP) ## the tests of neurons that come from these libraries, and of the card, beside the libraries themselves
	$(PEERS)/bin/python -m pytest -n auto --dist loadfile tests/peers

# The folder keeps itself out of git. torch comes first and pinned; the peers come without what they ask for, since
# torchvision would bring another torch.
$(PEERS_STAMP): pyproject.toml constraints.txt benchmarks/peers.txt
	$(PYTHON) -m venv $(PEERS)
	@echo '*' > $(PEERS)/.gitignore
	$(PEERS)/bin/python -m pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX) --retries 1 --timeout 15) "$$(grep '^torch==' constraints.txt)"
	$(PEERS)/bin/python -m pip install --quiet -c constraints.txt -e ".[train]" pytest pytest-xdist
	$(PEERS)/bin/python -m pip install --quiet --no-deps -c constraints.txt -r benchmarks/peers.txt
	@touch $@

zoo: install ## train the surrogates that ship, one for every built-in neuron, and the table of their card (about four minutes)
	$(PY) -m sdn zoo

gpu-code: develop ## registers and stack of the GPU kernels, compiled ahead of time for sm_90, to benchmarks/results
	env -u TRITON_INTERPRET $(PY) tests/gpu_code.py --write

# FUZZ="--only arrays.npz --case 7" reads one input with its traceback.
FUZZ ?=

fuzz: develop ## 10,000 damaged, edited and hostile inputs for every format and the configurations (about two minutes)
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(PY) -m fuzz $(FUZZ)

# RUNS are folders of finished runs; STUDY_OPTIONS go to every study, such as STUDY_OPTIONS="--root FOLDER --limit 500".
RUNS ?=
STUDY_OPTIONS ?=

studies: install ## all four studies of trained networks: RUNS="runs/brf-ecg-0 runs/rf-ecg-0"; see docs/studies.md
	@test -n "$(RUNS)" || { echo 'error: no runs; say make studies RUNS="runs/brf-ecg-0 runs/rf-ecg-0"'; exit 2; }
	for study in convergence ablation robustness landscape; do \
		$(PY) -m spikingssm study $$study $(RUNS) $(STUDY_OPTIONS) || exit $$?; \
	done

clean: ## remove the environment and what demo and tests left
	rm -rf $(VENV) demo build .pytest_cache .ruff_cache .mypy_cache .hypothesis
