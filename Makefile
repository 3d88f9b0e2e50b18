# make train      makes .venv on the first call, then runs the whole pipeline into runs/quickstart
# make test       makes .venv on the first call, then checks style and runs the fast tests
# make test-slow  runs the remaining tests
# make lint       style, formatting and types
# make env        makes .venv and no more
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

.PHONY: env train test test-slow lint style

train: env
	$(BIN)/python -m mlagent_jax.train $(ARGS)

test: style
	$(BIN)/python -m pytest -m "not slow and not gpu" $(ARGS)

test-slow: env
	$(BIN)/python -m pytest -m "slow and not gpu" $(ARGS)

lint: style
	$(BIN)/pyright

style: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

env:
	@requirements/install.sh
