PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
EDITORS_STAMP := .venv/.installed-editors

# Every target that `make help` lists names no file.
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*\#\# .*/\1/p' $(firstword $(MAKEFILE_LIST)))

help: ## list every target
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: $(STAMP) ## virtual environment with everything demo, tests and training need

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make setup PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[engine,http,train,dev]'
	@# Without it the model that comes with the package answers, and says so.
	-$(BIN)/dgemma-engine pull small
	@touch $@

demo: setup ## complete eight places in files of four languages with the resident engine
	$(BIN)/dgemma-lsp demo

# Files stay whole, because their fixtures start engines, and keep their order: the longest are not left to the end.
TEST_OPTIONS ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: setup ## run the tests, in one process for each core (TEST_OPTIONS= for one process)
	$(BIN)/python -m pytest -q $(TEST_OPTIONS)

ISA ?=

test-isa: setup ## run the numerical tests with the instructions of other processors (ISA=AVX2 for that one alone)
	$(BIN)/python tests/instruction_sets.py $(ISA)

$(EDITORS_STAMP): pyproject.toml $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[editors]'
	@touch $@

TRANSFORMERS ?= 5.24.0

test-transformers: setup ## run the parity tests against another version of transformers (TRANSFORMERS=5.24.0)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .transformers transformers==$(TRANSFORMERS)
	PYTHONPATH=.transformers $(BIN)/python -m pytest -q tests/engine/model/test_transformer.py tests/engine/families tests/engine/checkpoint/test_embedded.py

test-docs: setup ## run every command of every document
	$(BIN)/python -m pytest -q -m documents tests/documents

test-editors: setup $(EDITORS_STAMP) ## run the tests in real editors, which are installed into .editors first
	$(BIN)/python -m pytest -q -m editors tests/editors

CLIENTS_STAMP := .clients/.installed

$(CLIENTS_STAMP): Makefile $(STAMP)
	$(PYTHON) -m venv .clients/venv
	.clients/venv/bin/python -m pip install --quiet --disable-pip-version-check litellm==1.110.2 llm==0.36
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[editors]'
	$(BIN)/dgemma-engine pull small
	$(BIN)/python tests/clients/get_llama_cpp.py .clients
	npm install --prefix .clients --no-audit --no-fund --silent @continuedev/openai-adapters@1.37.0 tabby-agent@1.5.0
	@touch $@

test-clients: setup $(CLIENTS_STAMP) ## run the tests with clients of other projects, which are installed into .clients first
	$(BIN)/python -m pytest -q -m clients tests/clients

lint: setup ## style, formatting, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check . || { echo "make format rewrites these files"; exit 1; }
	$(BIN)/lint-imports

types: setup ## strict type check, and a basic one of the benchmarks
	$(BIN)/basedpyright
	$(BIN)/basedpyright -p engine/bench/pyrightconfig.json

format: setup ## format the code
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

# What a benchmark measures goes to a folder that git ignores; RECORD=--record puts it where documents quote it.
RECORD ?=

bench: setup ## server overhead, cold start, keystrokes, deadlines, a step, and transformers beside ours
	for name in server/server_overhead server/cold_start speed/warm speed/step speed/breakdown speed/keystrokes speed/on_time; do $(BIN)/python engine/bench/$$name.py $(RECORD) || exit 1; done

# LLAMA=--llama=FILE.gguf measures real weights, which may be read in 4 bits; THREADS=2 two threads;
# LLAMA_CPP=--llama-cpp=PATH llama.cpp's llama-bench beside them.
LLAMA ?=
LLAMA_CPP ?=
THREADS ?= 1
# ISAS=--instruction-sets compares once more with the instructions of other processors.
ISAS ?=

bench-cpu: setup ## both families on a processor against transformers; the last line is the result as JSON
	$(BIN)/python engine/bench/speed/cpu.py --threads $(THREADS) $(LLAMA) $(LLAMA_CPP) $(ISAS) $(RECORD)

ENGINE ?= $(BIN)/dgemma-engine
CONFIG := engine/dgemma_engine/tools/training/configs/embedded_gpu.toml

train-gpu: ## on a GPU: corpus, 25 minutes of training, int4 model in run/embedded; run it again to go on where it stopped
	test -d corpus || $(ENGINE) corpus corpus
	$(ENGINE) train $(CONFIG) --corpus corpus --out run --device cuda $(if $(wildcard run/state.pt),--resume)
	rm -rf run/embedded
	$(ENGINE) quantize run/best run/embedded --format int4

ADAPT := adapt --base small --corpus runs/corpus.jsonl.gz --out runs/adapter
MINUTES ?= 170

runs/corpus.jsonl.gz:
	$(ENGINE) corpus-packages $@

adapt: setup runs/corpus.jsonl.gz ## train an adapter of `small` on a processor; run it again to go on (MINUTES=170)
	$(ENGINE) $(ADAPT) --device cpu --minutes $(MINUTES) $(if $(wildcard runs/adapter/state.pt),--resume)

ADAPT_DEVICE ?= cuda

adapt-gpu: runs/corpus.jsonl.gz ## train an adapter of `small` on a GPU in five minutes, 8 documents a step; run it again to go on
	$(ENGINE) $(ADAPT) --device $(ADAPT_DEVICE) --documents 8 --holes 48 --minutes 5 $(if $(wildcard runs/adapter/state.pt),--resume)

bench-open: setup ## processor time to open the GGUF file of the model `small`, header and tokenizer
	$(BIN)/python engine/bench/speed/open_gguf.py $(RECORD)

bench-gguf: setup ## products with weights of a GGUF file as they are stored, and the time to plan checkpoints of the published layouts
	$(BIN)/python engine/bench/speed/gguf_products.py $(RECORD) && $(BIN)/python engine/bench/speed/open_published.py $(RECORD)

bench-messages: setup ## processor time of the costliest message about texts of 10^6 and 10^7 characters
	$(BIN)/python engine/bench/server/message_cost.py $(RECORD)

# MODEL=small replays them with that model.
MODEL ?= tiny

bench-typing: setup ## traces of keys replayed against the real server and engine: answers, waiting, wasted steps
	$(BIN)/python engine/bench/server/typing_traces.py --model $(MODEL) $(RECORD)

figures: setup ## the figures that documents quote, rewritten from engine/bench/results
	$(BIN)/python engine/bench/documents/figures.py

picture: setup $(EDITORS_STAMP) ## the pictures of the documents: a completion in VS Code, the page of a trace
	$(BIN)/python engine/bench/documents/completion_picture.py
	$(BIN)/python engine/bench/documents/trace_picture.py

bench-neovim: setup $(EDITORS_STAMP) ## how long a Neovim user waits for ghost text
	$(BIN)/python engine/bench/server/editor_neovim.py $(RECORD)

# The machine's own Python where its torch has CUDA, else that of .venv; make gpu-report GPU_PYTHON=... names another.
GPU_PYTHON ?= $(shell python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null && echo python3 || echo $(BIN)/python)
GPU_OPTIONS ?=

gpu-report: ## on a GPU, in five minutes: kernels checked at full size, steps, requests, each kernel, launch table
	@python="$(GPU_PYTHON)"; $$python engine/bench/gpu/gpu_report.py $(RECORD) $(GPU_OPTIONS); status=$$?; $$python engine/bench/gpu/gpu_table.py && exit $$status

bench-vscode: setup $(EDITORS_STAMP) ## how long a VS Code user waits for ghost text
	$(BIN)/python engine/bench/server/editor_vscode.py $(RECORD)

bench-path: setup ## the path of one warm request through the code: files, functions, deepest stacks
	$(BIN)/python engine/bench/server/request_path.py $(RECORD)

soak: setup ## half an hour of mixed traffic: nothing unanswered, no error, no growth
	$(BIN)/python engine/bench/server/soak.py $(RECORD)

chaos: setup ## 300,000 steps of a client that misbehaves at random, 2,000 with the real engine: one answer to each request
	$(BIN)/python engine/bench/server/chaos.py $(RECORD)

bench-http: setup ## what HTTP adds to the socket, its memory, 50 clients at once, and tokens encoded anew while typing over it
	$(BIN)/python engine/bench/http_api/overhead.py $(RECORD) && $(BIN)/python engine/bench/http_api/replay.py $(RECORD)

bench-teams: setup ## a team's engines on Ray Serve: overhead, 100,000 questions with losses, people who type, a simulation of more
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[ray]'
	$(BIN)/python engine/bench/cluster/teams.py $(RECORD)

bench-remote: setup ## what an engine elsewhere adds, bytes of a key, 10,000 questions over a network with resets, delays, half answers
	$(BIN)/python engine/bench/http_api/remote_engine.py $(RECORD)

# FUZZ_CASES="--cases=1000 --real-cases=20" asks fewer.
FUZZ_CASES ?=

fuzz-http: setup ## 100,000 requests made from the published OpenAPI document, 2,000 with the real engine: no answer is a fault
	$(BIN)/python engine/bench/http_api/fuzz.py $(FUZZ_CASES) $(RECORD)

VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
DIST := dist
NVIM_ARCHIVE = $(DIST)/dgemma-nvim-$(VERSION).tar.gz
NVIM_PACK = $(or $(XDG_DATA_HOME),$(HOME)/.local/share)/nvim/site/pack/dgemma/start

package: setup package-neovim package-vscode ## source archive, wheel, Neovim archive and VS Code extension into dist
	$(BIN)/python -m build --outdir $(DIST) . >/dev/null

CHECK := $(DIST)/.check

# What a package index shows of the wheel: README, licence, keywords and classifiers.
define DESCRIBED
from importlib.metadata import metadata
found = metadata("dgemma-lsp")
assert found["License-Expression"] == "Apache-2.0" and found["Description-Content-Type"] == "text/markdown", found
assert found["Description"].startswith("# dgemma-lsp") and found["Keywords"] and found.get_all("Classifier"), found
endef
export DESCRIBED

check-package: package ## install the wheel into an empty environment, alone and with each extra of a user
	rm -rf $(CHECK) && $(PYTHON) -m venv $(CHECK)
	$(CHECK)/bin/pip install --quiet --disable-pip-version-check $(DIST)/dgemma_lsp-$(VERSION)-py3-none-any.whl
	$(CHECK)/bin/dgemma-lsp --version
	$(CHECK)/bin/python -c "$$DESCRIBED"
	$(CHECK)/bin/pip install --quiet --disable-pip-version-check '$(DIST)/dgemma_lsp-$(VERSION)-py3-none-any.whl[engine,http]' torch==2.13.0
	cd / && $(CURDIR)/$(CHECK)/bin/dgemma-lsp complete $(CURDIR)/dgemma_lsp/request.py:30:5 --model tiny
	$(CHECK)/bin/dgemma-engine stop --model tiny
	$(CHECK)/bin/dgemma-engine serve --ray-example first_steps >/dev/null
	$(CHECK)/bin/pip install --quiet --disable-pip-version-check '$(DIST)/dgemma_lsp-$(VERSION)-py3-none-any.whl[ray,train,eval]' torch==2.13.0
	cd / && $(CURDIR)/$(CHECK)/bin/python -c 'import dgemma_engine.cluster.application, matplotlib, pyarrow'

package-neovim: setup ## Neovim archive into dist
	mkdir -p $(DIST)
	$(BIN)/python -c "import tarfile; a = tarfile.open('$(NVIM_ARCHIVE)', 'w:gz'); a.add('editors/neovim', 'dgemma-nvim'); a.add('LICENSE', 'dgemma-nvim/LICENSE'); a.close()"

package-vscode: setup ## VS Code extension into dist
	$(BIN)/python editors/vscode/scripts/build_vsix.py $(DIST)

CODE ?= code

install-vscode: setup ## VS Code extension built and installed (CODE=codium for another command)
	@command -v $(firstword $(CODE)) >/dev/null || { echo "There is no command $(firstword $(CODE)). In VS Code run \"Shell Command: Install 'code' command in PATH\", or name another with CODE=codium, or run make package-vscode and choose \"Install from VSIX...\" in the Extensions view." >&2; exit 1; }
	$(CODE) --install-extension "$$($(BIN)/python editors/vscode/scripts/build_vsix.py $(DIST))"

install-neovim: setup ## server into .venv, plugin into Neovim's packages, as a link to this checkout
	mkdir -p "$(NVIM_PACK)"
	ln -sfn "$(CURDIR)/editors/neovim" "$(NVIM_PACK)/dgemma-nvim"
	@echo "add to init.lua: require('dgemma').setup({})"


clean: ## remove the environment and everything built
	rm -rf .venv .editors .clients dist editors/vscode/node_modules editors/vscode/out .pytest_cache .ruff_cache .hypothesis
