"""Time, memory and work of a config's training step on this machine.

    python -m experiments.benchmark_step --config=configs/demo.py --steps=20

The step is the train loop's own: same sharding, same donation. Images are the data set's where
`config.data.dir` is one, random otherwise; the step's time does not include reading them. Its work
(XLA's count) is set beside a matrix product measured in the same run, before and after the steps.
"""

import dataclasses
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from interestyle_jax.commands.options import Parser
from interestyle_jax.config.files import read_config
from interestyle_jax.data.data_set import present_fields
from interestyle_jax.data.pipeline import training_batches
from interestyle_jax.errors import InputError
from interestyle_jax.exit_status import run_command
from interestyle_jax.library_versions import library_versions
from interestyle_jax.models.products import matmul
from interestyle_jax.parallel import sharding
from interestyle_jax.training.compiled_step import jit_train_step, phases, step_places
from interestyle_jax.training.random_streams import SeededTask
from interestyle_jax.training.run_directory import git_commit
from interestyle_jax.training.task import Task
from interestyle_jax.training.trainer import make_task

MATMUL_SIZE = 1024
# Of a run of a few steps lazy updates would have no fair share.
PHASE_STEPS = 1000
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class StepFigures:
    """One compiled form of the step; a task with lazy regularisers has several.

    Attributes:
      phase: what is special about it, () for the plain step.
      share: of the steps of a run that have this form.
      trace_seconds: until XLA has the program.
      compile_seconds: XLA's own time.
      seconds: of each timed step.
      flops: per device and step as XLA counts them, the bodies of loops once; None where it does
        not say.
      memory: bytes that the compiled program says it needs, per device: arguments, outputs,
        temporary, and the outputs that reuse arguments (aliased).
    """

    phase: tuple[str, ...]
    share: float
    trace_seconds: float
    compile_seconds: float
    seconds: list[float]
    flops: float | None
    memory: dict[str, int]


def benchmark(config: ml_collections.ConfigDict, *, steps: int = 10) -> dict[str, Any]:
    """Compiles and times a config's training step.

    Args:
      config: a training config.
      steps: how many times each form of the step runs, after one run that is not timed.

    Returns:
      A JSON-able dict; `markdown` shows it.

    Raises:
      InputError: bad config or steps.
    """
    if steps < 1:
        raise InputError(f"steps: {steps}, expected at least 1")
    mesh = sharding.make_mesh(data=config.mesh.data, fsdp=config.mesh.fsdp)
    sharding.check_batch_size(mesh, config.batch_size, accumulate=config.get("accumulate", 1))
    load_before = os.getloadavg()[0]
    matmul = [matmul_flops_per_second()]
    task = make_task(config)
    seeded = SeededTask(task, config.seed)
    shapes = jax.eval_shape(seeded.init, seeded.initial)
    places = step_places(config, mesh, shapes, seeded.frozen)
    state = jax.jit(seeded.init, out_shardings=places.state)(seeded.initial)
    frozen = sharding.put_tree(seeded.frozen, places.frozen)
    source, reading = _images(config, task, steps)
    batch = sharding.put_batch(source, places.batch)
    jax.block_until_ready((state, frozen, batch))
    peak = {"before_compiling": _peak_rss()}
    jitted = jit_train_step(seeded, mesh, places)
    figures = []
    for phase, share in phases(task, max(config.num_steps, PHASE_STEPS)):
        with jax.set_mesh(mesh):
            state, step = _measure(jitted, (state, frozen, batch), phase, share, steps)
        figures.append(step)
    peak["after_the_steps"] = _peak_rss()
    matmul.append(matmul_flops_per_second())
    mean = sum(f.share * statistics.median(f.seconds) for f in figures)
    return {
        "batch_size": config.batch_size,
        "num_parameters": sum(x.size for x in jax.tree.leaves(state)),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "cores": os.cpu_count(),
        "machine": platform.platform(),
        "load_average_before": load_before,
        "images": "random" if reading is None else config.data.dir,
        "reading_images_per_second": reading,
        "seconds_per_step": mean,
        "images_per_second": config.batch_size / mean,
        "matmul_flops_per_second": max(matmul),
        "matmul_each": matmul,
        # XLA counts a device's work; those of a CPU share the cores that the product has.
        "devices_per_matmul": jax.device_count() if jax.default_backend() == "cpu" else 1,
        "peak_rss_bytes": peak,
        "device_peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        "steps": [dataclasses.asdict(f) for f in figures],
        "git_commit": git_commit(),
        "versions": library_versions(),
    }


def matmul_flops_per_second(size: int = MATMUL_SIZE, *, repeats: int = 10) -> float:
    """The best rate of a float32 product of two [size, size] matrices on one device."""
    a = jax.numpy.asarray(np.random.default_rng(0).normal(size=(size, size)), np.float32)
    product = jax.jit(matmul)
    product(a, a).block_until_ready()
    best = float("inf")
    for _ in range(repeats):
        begun = time.perf_counter()
        product(a, a).block_until_ready()
        best = min(best, time.perf_counter() - begun)
    return 2.0 * size**3 / best


def _measure(jitted, arguments, phase, share, steps):
    """The state afterwards (the one given is donated), and the figures of one form of the step."""
    state, frozen, batch = arguments
    begun = time.perf_counter()
    lowered = jitted.lower(state, frozen, batch, phase)
    traced = time.perf_counter()
    compiled = lowered.compile()
    ready = time.perf_counter()
    seconds = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        state, metrics = compiled(state, frozen, batch)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - started)
    costs = compiled.cost_analysis() or {}
    memory = compiled.memory_analysis()
    figures = StepFigures(
        phase=phase,
        share=share,
        trace_seconds=traced - begun,
        compile_seconds=ready - traced,
        seconds=seconds[1:],
        flops=costs.get("flops"),
        memory={
            name: int(getattr(memory, f"{field}_size_in_bytes"))
            for name, field in (
                ("arguments", "argument"),
                ("outputs", "output"),
                ("temporary", "temp"),
                ("aliased", "alias"),
            )
        },
    )
    return state, figures


def _images(
    config: ml_collections.ConfigDict, task: Task, steps: int
) -> tuple[dict[str, np.ndarray], float | None]:
    """A batch (uint8), and at how many images a second batches are read, None for random ones."""
    if config.data.dir and Path(config.data.dir).exists():
        with training_batches(
            config.data.dir,
            config.data.train_split,
            batch_size=config.batch_size,
            seed=config.seed,
            fields=present_fields(
                config.data.dir, task.batch_fields, optional=task.optional_fields
            ),
            flip=config.data.flip,
            num_workers=config.data.workers,
        ) as batches:
            batch = next(batches)
            begun = time.perf_counter()
            for _ in range(steps):
                next(batches)
            rate = steps * config.batch_size / (time.perf_counter() - begun)
        return batch, rate
    if config.task == "generator":
        sides = (config.generator.resolution,) * 2
    else:
        sides = task.networks.image_shape  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    drawn: dict[str, np.ndarray] = {"id": np.arange(config.batch_size)}
    for field in task.batch_fields:
        channels = 1 if "mask" in field else 3
        shape = (config.batch_size, *sides, channels)
        drawn[field] = rng.integers(0, 256, shape, dtype=np.uint8)
        if channels == 1:
            drawn[field] = np.where(drawn[field] > 127, 255, 0).astype(np.uint8)
    return drawn, None


def _peak_rss() -> int:
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def markdown(config: str, result: dict[str, Any]) -> str:
    """The result as a Markdown table, a column for each form of the step."""
    steps = result["steps"]
    rate = result["matmul_flops_per_second"]
    rows: list[tuple[str, list[str]]] = [
        ("share of the steps", [f"{s['share']:.3f}" for s in steps]),
        ("trace (s)", [f"{s['trace_seconds']:.1f}" for s in steps]),
        ("compile (s)", [f"{s['compile_seconds']:.1f}" for s in steps]),
        ("s / step, median", [f"{statistics.median(s['seconds']):.4g}" for s in steps]),
        (
            "s / step, smallest – largest",
            [f"{min(s['seconds']):.4g} – {max(s['seconds']):.4g}" for s in steps],
        ),
        (
            "images / s",
            [f"{result['batch_size'] / statistics.median(s['seconds']):.4g}" for s in steps],
        ),
    ]
    known = [s["flops"] is not None for s in steps]
    if all(known):
        work = [s["flops"] * result["devices_per_matmul"] for s in steps]
        floors = [flops / rate for flops in work]
        achieved = [
            flops / statistics.median(s["seconds"]) for flops, s in zip(work, steps, strict=True)
        ]
        rows += [
            ("GFLOP / step (XLA's count)", [f"{flops / 1e9:.4g}" for flops in work]),
            ("GFLOP/s", [f"{x / 1e9:.4g}" for x in achieved]),
            ("floor at the matmul's rate (s / step)", [f"{x:.4g}" for x in floors]),
            ("measured / floor", [f"{rate / x:.2f}" for x in achieved]),
        ]
    for name in ("arguments", "outputs", "aliased", "temporary"):
        rows.append((f"{name} (MiB)", [f"{s['memory'][name] / MIB:.1f}" for s in steps]))
    headers = [" + ".join(("step", *s["phase"])) for s in steps]
    reading = result["reading_images_per_second"]
    peak = result["peak_rss_bytes"]
    facts = [
        f"`{config}`, batch {result['batch_size']}, {result['devices']}, {result['cores']} cores, "
        f"jax {result['versions']['jax']}, load average before {result['load_average_before']:.1f}",
        f"{MATMUL_SIZE}³ float32 matmul in this run: {rate / 1e9:.4g} GFLOP/s",
        f"all forms together: {result['seconds_per_step']:.4g} s / step, "
        f"{result['images_per_second']:.4g} images / s",
        f"peak resident memory: {peak['after_the_steps'] / MIB:.0f} MiB "
        f"({peak['before_compiling'] / MIB:.0f} MiB before compiling)",
        "images: random" if reading is None else f"reading alone: {reading:.4g} images / s",
    ]
    return "\n".join(
        [
            "| | " + " | ".join(headers) + " |",
            "|---|" + "---:|" * len(steps),
            *(f"| {label} | " + " | ".join(cells) + " |" for label, cells in rows),
            "",
            *(f"- {fact}" for fact in facts),
            "",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0, or 2 or 1 with one line on stderr (`exit_status`)."""
    return run_command(lambda: _run(argv), program="benchmark")


def _run(argv: Sequence[str] | None) -> None:
    parser = Parser(
        prog="python -m experiments.benchmark_step",
        description="Times a config's training step; --config.field=value changes a field.",
    )
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]")
    parser.add_argument("--steps", type=int, default=10, help="timed steps (default 10)")
    args, overrides = parser.parse_known_args(argv)
    result = benchmark(read_config(args.config, overrides=overrides), steps=args.steps)
    print(markdown(args.config, result))
    print(f"```json\n{json.dumps({'config': args.config, **result})}\n```")


if __name__ == "__main__":
    sys.exit(main())
