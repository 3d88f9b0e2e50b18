#!/usr/bin/env bash
# Makes the two environments of a checkout: .venv (trainer, policy server, tests) from cpu.txt, and .venv/task_env
# (what sandboxed agent scripts see) from task_env.txt. Does nothing when both are there and their lists unchanged.
#
#   PYTHON=              the interpreter to build on, 3.11 or later; by default that of an existing .venv, else python3
#   TORCH_INDEX=         an extra package index that has the CPU build of torch, where pip does not find it by itself
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
lists=requirements here=$PWD/.venv
quiet=$([[ -t 1 ]] || echo --quiet) # progress bars are for people
fail() { echo "make env: $*" >&2; exit 1; }

python=${PYTHON:-$([[ -x $here/bin/python ]] && echo "$here/bin/python" || echo python3)}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "'$python' is not Python 3.11 or later; name one that is, as in: make env PYTHON=python3.12"
python=$("$python" -c 'import sys; print(sys._base_executable)') # not that of a .venv that is replaced below

exec 9<"$lists/install.sh" && flock 9 # one installation at a time: a second `make` waits here
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
package=$(sed '/^\[tool\.pytest/,$d' pyproject.toml) # without the settings of test and lint tools, which install nothing
wanted=$(cat "$lists"/{cpu,data,task_env}.txt "$lists/install.sh" <(echo "$package $version $here") | sha256sum | cut -c 1-16)
[[ -e .venv/.installed-$wanted ]] && exit 0

# Start over for another Python, and after an interruption, which can leave half a package that looks complete.
if [[ -e .venv/.unfinished || ! -d .venv/lib/python$version ]]; then
    rm -rf .venv
fi
mkdir -p .venv && touch .venv/.unfinished && rm -f .venv/.installed-*

pip() { "$here/bin/python" -m pip --disable-pip-version-check "$@"; }

# install INTERPRETER ARGUMENTS...: by uv, which takes a tenth of pip's time, and by pip where uv cannot.
install() {
    local interpreter=$1 index=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-}}
    shift
    env ${index:+UV_DEFAULT_INDEX="$index"} "$here/bin/uv" pip install $quiet --python "$interpreter" "$@" && return
    echo "make env: uv did not install; pip does it, which takes a few minutes"
    pip --python "$interpreter" install $quiet "$@"
}

echo "make env: installing into .venv; the first time downloads about 1.3 GB"
[[ -x .venv/bin/pip ]] || "$python" -m venv .venv
pip install --quiet --no-deps "$(grep '^uv==' $lists/cpu.txt)" || true # without it, `install` falls back to pip

# torch first and by pip alone, because pip's configuration knows where this machine's CPU build is, and uv's does not.
pip install $quiet --no-deps --no-compile ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$(grep '^torch==' $lists/cpu.txt)"
PIP_NO_COMPILE=1 install .venv/bin/python --no-deps -r "$lists/cpu.txt"
PIP_NO_COMPILE=1 install .venv/bin/python --no-deps --no-build-isolation --editable .
.venv/bin/python -c 'import torch, sys; sys.exit(torch.version.cuda is not None)' 2>/dev/null ||
    fail "the torch that pip found is not a CPU build; give pip the CPU index that PyTorch's install page names:" \
        "make env TORCH_INDEX=<its address>"

# The ratings of product_rating are in the source archive of a package; what would be installed from it lacks them.
pip download $quiet --no-deps --no-binary :all: --no-build-isolation --dest .venv/opt/data vaderSentiment==3.3.2

# Bytecode is compiled here because sandboxed scripts see this environment read-only and could never cache it.
[[ -x .venv/task_env/bin/python ]] || "$python" -m venv --without-pip .venv/task_env
UV_COMPILE_BYTECODE=1 install .venv/task_env/bin/python --no-deps -r "$lists/task_env.txt"

rm .venv/.unfinished && touch ".venv/.installed-$wanted"
