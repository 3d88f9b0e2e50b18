"""What deploys the trainer parses, and names the processes, ports, devices and exit codes that the trainer has."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlagent_jax.server import parse_arguments as server_arguments
from mlagent_jax.train import PREEMPTED, parse_arguments
from rollout.inference.access import KEY_VARIABLE

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted([*(ROOT / "deploy").rglob("*.sh"), *(ROOT / "deploy").rglob("*.sbatch")])
JOBSETS = sorted((ROOT / "deploy").rglob("*.yaml"))


def pod(job: dict[str, Any]) -> dict[str, Any]:
    return job["template"]["spec"]["template"]["spec"]


@pytest.fixture(params=JOBSETS, ids=lambda path: path.parent.name)
def jobset(request: pytest.FixtureRequest) -> dict[str, Any]:
    return yaml.safe_load(request.param.read_text())


@pytest.fixture
def trainer(jobset: dict[str, Any]) -> dict[str, Any]:
    (found,) = [job for job in jobset["spec"]["replicatedJobs"] if job["name"] == "trainer"]
    return found


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)


def test_every_chip_has_its_place_on_the_mesh(trainer: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (container,) = pod(trainer)["containers"]
    python, *module, config, file = container["command"][:5]
    assert module == ["-m", "mlagent_jax.train"]
    mesh = parse_arguments([config, file, *container["command"][5:]])[0].mesh  # and all settings fit together
    ((_, chips),) = container["resources"]["limits"].items()
    hosts = trainer["template"]["spec"]["parallelism"]
    assert hosts == trainer["template"]["spec"]["completions"]
    assert mesh.data * mesh.fsdp * mesh.tensor * mesh.context == hosts * chips


def test_preempted_trainer_is_restarted_and_no_other_pod_alone(jobset: dict[str, Any], trainer: dict[str, Any]) -> None:
    job = trainer["template"]["spec"]
    saved, lost = job["podFailurePolicy"]["rules"]
    assert saved == {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [PREEMPTED]}}
    assert lost == {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert job["backoffLimit"] == 0 and pod(trainer)["restartPolicy"] == "Never"
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]


def test_pods_on_gpus_know_coordinator_number_and_count() -> None:
    jobset = yaml.safe_load((ROOT / "deploy/kubernetes/jobset.yaml").read_text())
    name = jobset["metadata"]["name"]
    trainer, server = jobset["spec"]["replicatedJobs"]
    (container,) = pod(trainer)["containers"]
    given = {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}
    port = container["ports"][0]["containerPort"]
    assert given["JAX_COORDINATOR_ADDRESS"] == f"{name}-{trainer['name']}-0-0.{name}:{port}"
    assert given["JAX_NUM_PROCESSES"] == str(trainer["template"]["spec"]["completions"])
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert given["JAX_PROCESS_ID"] == {"fieldRef": {"fieldPath": index}}
    served = f"server.address=http://{name}-{server['name']}-0-0.{name}:{pod(server)['containers'][0]['ports'][0]['containerPort']}"
    assert served in container["command"]
    assert pod(server)["volumes"] == pod(trainer)["volumes"]  # weights travel as files, under one path
    assert jobset["spec"]["successPolicy"]["targetReplicatedJobs"] == ["trainer"]


def test_server_for_other_machines_has_the_settings_of_the_run_its_key_and_no_other(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    trainer, server = yaml.safe_load((ROOT / "deploy/kubernetes/jobset.yaml").read_text())["spec"]["replicatedJobs"]
    (training,), (container,) = pod(trainer)["containers"], pod(server)["containers"]
    assert container["command"][:3] == [".venv/bin/python", "-m", "mlagent_jax.server"]
    config, host, port = server_arguments(container["command"][3:])
    assert (host, port) == ("0.0.0.0", container["ports"][0]["containerPort"])
    run = parse_arguments(training["command"][3:])[0]
    assert (config.server.dtype, config.server.max_model_len) == (run.server.dtype, run.server.max_model_len)
    assert (config.run_dir, config.model.path) == (run.run_dir, run.model.path)
    (key,) = container["env"]
    assert key in training["env"] and key["name"] == KEY_VARIABLE == run.server.api_key_env
    assert "envFrom" not in container  # the expert's key stays with the trainer


def test_every_container_that_serves_others_or_asks_such_a_server_has_its_key(jobset: dict[str, Any]) -> None:
    containers = [each for job in jobset["spec"]["replicatedJobs"] for each in pod(job)["containers"]]
    keyed = [
        each for each in containers if any(part.startswith(("server.address=", "--host=")) for part in each["command"])
    ]
    assert keyed
    for container in keyed:
        assert KEY_VARIABLE in [entry["name"] for entry in container["env"]]


def test_trainer_of_a_slice_reads_the_servers_key_from_its_file() -> None:
    script = (ROOT / "deploy/tpu/queued_resource.sh").read_text()
    (line,) = [line for line in script.splitlines() if "mlagent_jax.train" in line and not line.startswith("#")]
    assert f"export {KEY_VARIABLE}=\\$(cat $KEY_FILE)" in line


def test_tpu_slice_has_as_many_chips_as_its_topology() -> None:
    (trainer,) = yaml.safe_load((ROOT / "deploy/tpu/jobset.yaml").read_text())["spec"]["replicatedJobs"]
    x, y, z = map(int, pod(trainer)["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    (container,) = pod(trainer)["containers"]
    assert x * y * z == trainer["template"]["spec"]["parallelism"] * container["resources"]["limits"]["google.com/tpu"]
    assert {8471, 8482} == {port["containerPort"] for port in container["ports"]}


def test_slurm_requeues_what_was_preempted() -> None:
    script = (ROOT / "deploy/slurm/train.sbatch").read_text()
    assert f'[ "$code" -eq {PREEMPTED} ]' in script and "#SBATCH --requeue" in script
    assert "--signal=TERM@" in script  # to the tasks; with B: it would be to this script alone
