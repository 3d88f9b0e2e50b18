#!/bin/bash
# A TPU slice without Kubernetes: deploy/tpu/queued_resource.sh create | status | each COMMAND | train SETTING... | delete
#
# NAME, PROJECT, ZONE, ACCELERATOR and RUNTIME come from the environment. `each` runs a command on every host: use it to
# mount the shared folder and to install the trainer (README.md). `train` starts the trainer on all hosts; JAX finds the
# others in the machines' metadata. KEY_FILE on the shared folder, of mode 0600, holds the policy server's key. Exit code
# 75: preempted with all work saved; the same command resumes.
set -euo pipefail
: "${PROJECT:?the Google Cloud project}" "${ZONE:?such as us-east5-a}"
NAME=${NAME:-mlagent}
ACCELERATOR=${ACCELERATOR:-v5p-32} # counted in cores: 16 chips on four hosts
RUNTIME=${RUNTIME:-v2-alpha-tpuv5}
CHECKOUT=${CHECKOUT:-/shared/mlagent_jax}
KEY_FILE=${KEY_FILE:-/shared/mlagent_server.key}
WHERE=(--project "$PROJECT" --zone "$ZONE")

on_every_host() {
    gcloud compute tpus tpu-vm ssh "$NAME" "${WHERE[@]}" --worker=all --command "$1"
}

verb=${1:?create, status, each, train or delete}
shift
case $verb in
create)
    gcloud compute tpus queued-resources create "$NAME" "${WHERE[@]}" --node-id "$NAME" \
        --accelerator-type "$ACCELERATOR" --runtime-version "$RUNTIME" "$@" # such as --spot
    ;;
status) gcloud compute tpus queued-resources describe "$NAME" "${WHERE[@]}" ;;
each) on_every_host "$*" ;;
train)
    printf -v settings ' %q' "$@"
    on_every_host "cd $CHECKOUT && export MLAGENT_SERVER_KEY=\$(cat $KEY_FILE) && .venv-trainer/bin/python -m mlagent_jax.train$settings"
    ;;
delete) gcloud compute tpus queued-resources delete "$NAME" "${WHERE[@]}" --force --quiet ;;
*)
    echo "error: $verb: expected create, status, each, train or delete" >&2
    exit 2
    ;;
esac
