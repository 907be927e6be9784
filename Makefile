# From a fresh clone, with Python 3.10 or newer, pip and make: `make demo`, `make test`. Every target prepares .venv where it has to.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
DIST ?= dist
FUZZ ?= 75
PORT ?= 8000
BIN := $(VENV)/bin
READY := $(VENV)/.vitlens-installed
# toybox brings open3d where a plain install does not: on Linux from Python 3.13 on, and on arm64. Without a wheel: EXTRAS=".[all,dev,docs]".
EXTRAS := .[all,dev,docs,toybox]
# A torch that torchaudio does not exist for, and what is tested beside it: all that computes, but no odd files.
TORCH ?= 2.15.0
TORCH_VENV ?= .venv-torch-$(TORCH)
TORCH_TESTS ?= tests/core $(filter-out %_odd.py,$(wildcard tests/modalities/test_*.py)) tests/train tests/adapters/chat tests/adapters/seed tests/adapters/test_*.py

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-torch fuzz gpu lint format types docs wheel release install constraints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: $(READY) ## show what vitlens does, without downloads; writes demo/
	$(BIN)/vitlens demo

serve: $(READY) ## serve the shipped model with a page to drop files on, and the demo's files as examples; PORT=8000
	test -f demo/report.html || $(BIN)/vitlens demo
	$(BIN)/vitlens serve --model vitlens-toybox --examples demo --port $(PORT) $(ARGS)

test: $(READY) ## run the offline tests; ARGS="-k audio", JOBS=8
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

test-torch: $(TORCH_VENV)/.vitlens-installed ## run the tests of what computes beside TORCH=2.15.0, without torchaudio
	$(TORCH_VENV)/bin/python -m pytest -n $(JOBS) $(ARGS) $(TORCH_TESTS)

fuzz: $(READY) ## read damaged files of every format for FUZZ=75 seconds; a crash, a hang or any odd error fails
	$(BIN)/python -m vitlens.benchmarks.fuzz --seconds $(FUZZ) --jobs $(JOBS) $(ARGS)

gpu: $(READY) ## on a CUDA device: the goldens, the bench and a training step with its MFU; exit code 2 without one
	$(BIN)/python -m vitlens.benchmarks.speed.gpu --look
	$(BIN)/python -m pytest -n 0 -m gpu $(ARGS)
	$(BIN)/vitlens bench --device cuda
	$(BIN)/python -m vitlens.benchmarks.speed.gpu

lint: $(READY) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## format, and mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY) ## check the types
	$(BIN)/mypy

docs: $(READY) ## build the documentation into site/; every warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(READY) ## build the wheel into DIST=dist
	$(BIN)/python -m hatchling build -t wheel -d $(DIST)

release: $(READY) ## a release as a dry run: build, check, show the changelog's section; nothing is uploaded
	$(BIN)/python .ci/release.py

install: $(READY) ## only prepare .venv (or VENV=, with PYTHON=)

constraints: $(READY) ## pin pyproject.toml's dependencies again; ARGS=--upgrade takes new versions
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.10 --no-python-downloads \
	    --no-annotate --no-header --no-emit-package vitlens --quiet --output-file constraints.txt $(ARGS)
	{ echo '# The versions vitlens is tested with (Python 3.11, Linux x86-64); marked lines serve other Pythons and systems.'; \
	  echo '# Made by `make constraints` (uv pip compile --universal); used as `pip install -c constraints.txt`.'; \
	  cat constraints.txt; } > constraints.new
	mv constraints.new constraints.txt

clean: ## remove what the other targets made, except .venv
	rm -rf .venv-torch-* build dist site demo .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "vitlens needs Python 3.10 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV) || \
	    { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $@ install pip; }

# Installed once, and again when the dependencies change.
$(READY): pyproject.toml constraints.txt | $(BIN)/python
	{ $(BIN)/python -m pip install --quiet -c constraints.txt uv && \
	  .ci/uv $(BIN)/python pip install --python $(BIN)/python -c constraints.txt -e '$(EXTRAS)'; } || \
	    $(BIN)/python -m pip install -c constraints.txt -e '$(EXTRAS)'
	@touch $@

# The tested versions of everything but torch and what comes with it; torchaudio stays out.
$(TORCH_VENV)/.vitlens-installed: pyproject.toml constraints.txt $(READY)
	$(BIN)/python -m venv --clear --without-pip $(TORCH_VENV)
	grep -vE '^(torch|torchvision|torchaudio|triton|nvidia-[a-z0-9-]+|cuda-[a-z-]+)==' constraints.txt >$(TORCH_VENV)/constraints.txt
	.ci/uv $(BIN)/python pip install --python $(TORCH_VENV)/bin/python -c $(TORCH_VENV)/constraints.txt \
	    'torch==$(TORCH)' -e '.[any-torch,test]'
	@touch $@
