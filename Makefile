PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help setup demo test lint types format bench bench-typing picture soak train-gpu package clean

help: ## list every target
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## virtual environment with everything demo, tests and training need

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make setup PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[engine,train,dev]'
	@touch $@

demo: setup ## complete real Python files with the resident engine
	$(BIN)/dgemma-lsp demo

test: setup ## run the tests
	$(BIN)/python -m pytest -q

lint: setup ## style, formatting, import contracts
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

types: setup ## strict type check
	$(BIN)/basedpyright

format: setup ## format the code
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: setup ## server overhead, cold start, keystrokes, deadlines, a step, and transformers beside ours
	for name in server_overhead cold_start warm step breakdown keystrokes on_time; do $(BIN)/python engine/bench/$$name.py || exit 1; done

ENGINE ?= $(BIN)/dgemma-engine
CONFIG := engine/dgemma_engine/training/configs/embedded_gpu.toml

train-gpu: ## on a GPU: corpus, 25 minutes of training, int4 model in run/embedded; run it again to go on where it stopped
	test -d corpus || $(ENGINE) corpus corpus
	$(ENGINE) train $(CONFIG) --corpus corpus --out run --device cuda $(if $(wildcard run/state.pt),--resume)
	rm -rf run/embedded
	$(ENGINE) quantize run/best run/embedded --format int4

bench-typing: setup ## traces of keys replayed against the real server and engine: answers, waiting, wasted steps
	$(BIN)/python engine/bench/typing_traces.py

picture: setup ## the picture that opens the README, through Chromium
	$(BIN)/python engine/bench/trace_picture.py

soak: setup ## half an hour of mixed traffic: nothing unanswered, no error, no growth
	$(BIN)/python engine/bench/soak.py

package: setup ## wheel and source archive into dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## remove the environment and everything built
	rm -rf .venv dist .pytest_cache .ruff_cache .hypothesis
