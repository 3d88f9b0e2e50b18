"""Compare our fine-tuning step with transformers': first check that the losses agree, then measure time, in turns."""

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.figures import compare, table
from benchmarks.sft_shapes import SHAPES, Load, known_peak, training_flops, utilization
from benchmarks.worker import Worker, WorkerFailed

# Largest relative difference of losses and gradient norms between two sides that compute the same.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
MATMUL_SIZES = [2048, 4096]
TRIES = 3  # trial passes that choose the fastest variants
Numbers = Sequence[Mapping[str, float]]


class Unequal(RuntimeError):
    """The two sides do not compute the same, so their times cannot be compared."""


@dataclass
class Variant:
    """One way to run the step, and its trial: an error, or the seconds of the fastest pass.

    Attributes:
        side: `ours` or `peer`.
        name: The name in tables.
        settings: Arguments of the worker's `start`.
    """

    side: str
    name: str
    settings: dict[str, Any]
    error: str | None = None
    best_seconds: float | None = None
    seconds: list[float] = field(default_factory=list)


class Bench:
    """The workers of one shape, and the folder in which our side leaves weights and batches for the other."""

    def __init__(self, shape: str, folder: Path, num_batches: int) -> None:
        self.shape, self.folder, self.num_batches = shape, folder, num_batches

    def worker(self, side: str) -> Worker:
        """Start and return a process of one side."""
        log, count = self.folder / f"{side}.log", str(self.num_batches)
        if side == "peer":
            return Worker("benchmarks.sft_torch", str(self.folder), count, log=log)
        share = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"}  # share of a GPU; the rest is the other side's
        return Worker("benchmarks.sft_ours", self.shape, str(self.folder), count, log=log, environment=share)


def variants(dtype: str, peer: bool) -> list[Variant]:
    """Return every way to run the step: ours, and if there is a `peer`, all of its ways that could be the fastest."""
    found = [
        Variant("ours", f"remat={remat}", {"dtype": dtype, "remat": remat}) for remat in ("none", "matmuls", "layer")
    ]
    weights = dict.fromkeys(["float32", dtype])
    for kept, attention, compiled in product(weights, ("mask", "causal", "flex"), (False, True)) if peer else ():
        name = f"{'compiled' if compiled else 'eager'}, {attention}, {kept} weights"
        settings = {"dtype": dtype, "weights": kept, "attention": attention, "compiled": compiled}
        found.append(Variant("peer", name, settings))
    return found


def require_equal(reference: Numbers, found: Numbers, tolerance: float, name: str) -> None:
    """Raise Unequal if a loss or gradient norm of `found` differs too much from the reference's, relatively."""
    for i, (ours, theirs) in enumerate(zip(reference, found, strict=True)):
        for key in ("loss", "gradient_norm"):
            difference = abs(theirs[key] - ours[key]) / abs(ours[key])
            if not difference <= tolerance:  # false for nan
                raise Unequal(
                    f"{name}: {key} of step {i} is {theirs[key]:.6g}, ours in fp32 {ours[key]:.6g}, a difference of "
                    f"{difference:.1e}, expected at most {tolerance:.0e}; nothing is reported"
                )


def run(shape: str, dtype: str, num_batches: int, num_rounds: int, tried: list[Variant]) -> dict[str, Any]:
    """Return the figures of one shape and dtype, from the variants to try.

    Raises:
        Unequal: If any variant does not compute the same as the others.
        WorkerFailed: If our own step fails, or the peer's in every variant.
    """
    peer = any(variant.side == "peer" for variant in tried)
    with tempfile.TemporaryDirectory(prefix="sft-") as name:
        bench = Bench(shape, Path(name), num_batches)
        with bench.worker("ours") as worker:
            load = Load(**worker.ask("make", peer=peer))
            sizes = MATMUL_SIZES if shape != "tiny" else [256]
            measured = worker.ask("peak", dtype=dtype, sizes=sizes)
        device, peaks = measured["device"], {"jax": measured["flops"]}
        threads = None
        if peer:
            with bench.worker("peer") as worker:
                answer = worker.ask("peak", dtype=dtype, sizes=sizes)
                peaks["torch"], threads = answer["flops"], answer["threads"]
        try_all(bench, tried, dtype, peer)
        chosen = finalists(tried)
        take_turns(bench, chosen, num_rounds)
    return {
        "shape": shape,
        "dtype": dtype,
        "device": device,
        "threads": threads,
        "peaks": peaks,
        **summarize(shape, load, chosen, known_peak(device, dtype) or max(peaks.values())),
        "variants": [vars(variant) for variant in tried],
    }


def try_all(bench: Bench, tried: Sequence[Variant], dtype: str, peer: bool) -> None:
    """Determine whether each variant runs and computes the same as the others, and its fastest of a few passes.

    Raises:
        Unequal: If one computes something else.
    """
    workers: dict[str, Worker] = {}
    with ExitStack() as stack:

        def started(side: str, **settings: Any) -> Numbers:
            if side not in workers or not workers[side].alive():
                workers[side] = stack.enter_context(bench.worker(side))
            return workers[side].ask("start", **settings)

        reference = started("ours", dtype="float32", remat="layer")
        if peer and dtype != "float32":  # bf16 has a wider tolerance, so the sides are compared in fp32 as well
            found = started("peer", dtype="float32", weights="float32", attention="mask", compiled=False)
            require_equal(reference, found, TOLERANCE["float32"], "peer in fp32")
        for variant in tried:
            try:
                require_equal(reference, started(variant.side, **variant.settings), TOLERANCE[dtype], variant.name)
                variant.best_seconds = min(workers[variant.side].ask("visit") for _ in range(TRIES))
            except WorkerFailed as error:
                variant.error = str(error)
            took = f"{variant.best_seconds:.3f} s a pass" if variant.best_seconds else variant.error
            print(f"{variant.side}: {variant.name}: {took}", flush=True)


def finalists(tried: Sequence[Variant]) -> dict[str, Variant]:
    """Return our fastest variant, the peer's, and the peer's among those that keep fp32 weights, as ours does."""
    ran = sorted((v for v in tried if v.best_seconds is not None), key=lambda v: v.best_seconds or 0.0)
    groups = {
        "ours": [v for v in ran if v.side == "ours"],
        "peer": [v for v in ran if v.side == "peer"],
        "peer_fp32_weights": [v for v in ran if v.settings.get("weights") == "float32"],
    }
    for name in {v.side for v in tried}:
        if not groups[name]:
            raise WorkerFailed(f"no variant of {name} ran: {next(v.error for v in tried if v.side == name)}")
    return {name: group[0] for name, group in groups.items() if group}


def take_turns(bench: Bench, chosen: Mapping[str, Variant], num_rounds: int) -> None:
    """Time a pass of every finalist, round after round; the first round does not count."""
    with ExitStack() as stack:
        workers = []
        for variant in {id(variant): variant for variant in chosen.values()}.values():
            worker = stack.enter_context(bench.worker(variant.side))
            worker.ask("start", **variant.settings)
            workers.append((variant, worker))
        for number in range(num_rounds + 1):
            for variant, worker in workers:
                seconds = worker.ask("visit")
                if number:
                    variant.seconds.append(seconds)


def summarize(shape: str, load: Load, chosen: Mapping[str, Variant], peak: float) -> dict[str, Any]:
    """Return tokens per second and utilization of every finalist, and our speed relative to each peer."""
    network = SHAPES[shape].network
    found: dict[str, Any] = {
        "load": vars(load),
        "flops_per_token": training_flops(network, load) / load.tokens,
        "peak": peak,
        "finalists": {},
    }
    for name, variant in chosen.items():
        median = statistics.median(variant.seconds)
        found["finalists"][name] = {
            "variant": variant.name,
            "tokens_per_second": round(load.tokens / median, 1),
            "lowest": round(load.tokens / max(variant.seconds), 1),
            "highest": round(load.tokens / min(variant.seconds), 1),
            "utilization": round(utilization(network, load, median, peak), 4),
        }
        if name != "ours":
            found["finalists"][name] |= compare(chosen["ours"].seconds, variant.seconds)
    return found


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    heading = ["", "variant", "tokens/s", "lowest to highest", "utilization", "ours is so many times as fast"]
    rows: list[Sequence[object]] = [heading]
    for name, each in result["finalists"].items():
        spread = f"{each['lowest']:,} to {each['highest']:,}"
        ratio = f"{each['ratio']} ({each['ratio_low']} to {each['ratio_high']})" if "ratio" in each else ""
        share = f"{100 * each['utilization']:.1f} %"
        rows.append([name.replace("_", " "), each["variant"], f"{each['tokens_per_second']:,}", spread, share, ratio])
    tried: list[Sequence[object]] = [["side", "variant", "seconds of the fastest pass, or why it does not run"]]
    for each in result["variants"]:
        tried.append([each["side"], each["name"], each["error"] or f"{each['best_seconds']:.3f}"])
    peaks = ", ".join(f"{name} {flops / 1e9:,.0f} GFLOP/s" for name, flops in result["peaks"].items())
    load = result["load"]
    lines = [
        f"{result['shape']}, {result['dtype']}, on {result['device']}; a pass is {load['tokens']:,} tokens, of which "
        f"{load['targets']:,} are targets. Largest matrix product: {peaks}; utilization is of "
        f"{result['peak'] / 1e9:,.0f} GFLOP/s.",
        table(rows),
        table(tried),
    ]
    return "\n\n".join(lines)


def last_line(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the last line to print: the ratio, None if there was no peer, and its meaning."""
    sides = result["finalists"]
    found = {"ratio": None} | {
        key: sides["peer"][key] for key in ("ratio", "ratio_low", "ratio_high") if "peer" in sides
    }
    if "peer_fp32_weights" in sides:
        found["ratio_fp32_weights"] = sides["peer_fp32_weights"]["ratio"]
    for name in ("ours", "peer"):
        if name in sides:
            found |= {f"{name}_{key}": sides[name][key] for key in ("tokens_per_second", "utilization")}
    return {"shape": result["shape"], "dtype": result["dtype"], "device": result["device"], **found}
