# make train      makes .venv on the first call, then runs the whole pipeline into runs/quickstart
# make test       makes .venv on the first call, then checks style and runs the fast tests
# make test-slow  runs the remaining tests
# make lint       style, formatting and types
# make env        makes .venv and no more
# make tpu-compiler  installs the TPU compiler, which python -m mlagent_jax.compile and some slow tests compile with
#
# ARGS='…' goes to the command at the end: make train ARGS='sft.num_epochs=1', make test ARGS='-k reward -x'
PYTHON ?=
TORCH_INDEX ?=
ARGS ?=
export PYTHON TORCH_INDEX
# Bytecode of .venv is written by the first import that needs it, also where the surroundings forbid it: without it
# every start of the policy server would compile some thousand files anew.
export PYTHONDONTWRITEBYTECODE :=

BIN := .venv/bin

.PHONY: env train test test-slow lint style tpu-compiler

train: env
	$(BIN)/python -m mlagent_jax.train $(ARGS)

test: style
	$(BIN)/python -m pytest -m "not slow and not gpu" $(ARGS)

test-slow: env tpu-compiler
	$(BIN)/python -m pytest -m "slow and not gpu" $(ARGS)

lint: style
	$(BIN)/pyright

style: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

env:
	@requirements/install.sh

# Apart from the environment's packages: vLLM takes a libtpu that can be imported for a TPU.
tpu-compiler: env
	@test -e .venv/opt/libtpu/libtpu/libtpu.so || \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target .venv/opt/libtpu libtpu==0.0.51
