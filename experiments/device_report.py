"""What this device makes of the networks: time, memory and kinds of convolutions, on one page.

    python -m experiments.device_report --out=report --minutes=4

Needs no data and no weights: they are random, in the official shapes. The page and its figures,
`DIR/report.md` and `DIR/report.json`, are written anew after every measurement, in their order;
at the end of its minutes the report stops and says what it left out. `--config.field=value` changes
the training's config. Times are medians of calls that were waited for, without compiling and
warm-up.
"""

import argparse
import datetime
import functools
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import device_programs as programs
from experiments.device_page import counted_text, page
from interestyle_jax.commands.options import Parser
from interestyle_jax.errors import InputError
from interestyle_jax.exit_status import run_command
from interestyle_jax.json_file import write_json
from interestyle_jax.library_versions import library_versions
from interestyle_jax.models import backend, registry
from interestyle_jax.planning.counted_work import Work, count_work
from interestyle_jax.training.run_directory import git_commit

# Calls are timed in groups of at least this long, at least thrice, for about so long.
GROUP_SECONDS, TIMING_SECONDS, REPEATS = 0.02, 1.5, 20
# What a program of a kind may take to compile and run, before one was measured.
GUESSES = {"ceiling": 8.0, "synthesis": 20.0, "parity": 30.0, "inversion": 60.0, "training": 150.0}
BATCHES = (8, 1, 16)


class Report:
    """The figures so far, on disk after every one, and the time that is left."""

    def __init__(
        self, out: Path, *, minutes: float, facts: dict[str, Any], guesses: Mapping[str, float]
    ):
        self.out, self.end = out, time.monotonic() + 60.0 * minutes
        self.content = {**facts, "minutes": minutes, "measurements": [], "left_out": []}
        self._guesses, self._longest = guesses, dict[str, float]()
        self._lock = threading.Lock()
        out.mkdir(parents=True, exist_ok=True)

    def measure(self, section: str, name: str, work: Callable[[], dict[str, Any]]) -> None:
        """Adds `work()` to a section, or says why not: no time left, or an error."""
        expected = self._longest.get(section, self._guesses.get(section, 0.0))
        entry: dict[str, Any] = {"section": section, "name": name}
        if time.monotonic() + expected > self.end:
            self.content["left_out"].append(f"{section}: {name}")
            self.write()
            return
        print(f"{section}: {name}", file=sys.stderr, flush=True)
        begun = time.monotonic()
        try:
            entry |= work()
        # One form that a compiler refuses, or that does not fit, ends no report.
        except Exception as error:
            entry["error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"[:400]
        taken = time.monotonic() - begun
        entry["all_seconds"] = taken
        self._longest[section] = max(self._longest.get(section, 0.0), taken)
        self.content["measurements"].append(entry)
        self.write()

    def write(self, note: str = "") -> None:
        """Writes both files."""
        with self._lock:
            if note:
                self.content["left_out"].append(note)
            write_json(self.out / "report.json", self.content)
            (self.out / "report.md").write_text(page(self.content), encoding="utf-8")


def timed(call: Callable[[], Any]) -> list[float]:
    """Seconds a call, of each group of calls; the call has been made before."""

    def group(count: int) -> float:
        begun = time.perf_counter()
        for _ in range(count):
            result = call()
        jax.block_until_ready(result)
        return (time.perf_counter() - begun) / count

    group(1)
    count = max(1, round(GROUP_SECONDS / max(group(1), 1e-6)))
    end, found = time.perf_counter() + TIMING_SECONDS, []
    while len(found) < 3 or (time.perf_counter() < end and len(found) < REPEATS):
        found.append(group(count))
    return found


def run_program(
    jitted: Any,
    arguments: tuple,
    *,
    images: int = 1,
    work: Work | None = None,
    call_with: Callable[[Any], Callable[[], Any]] | None = None,
) -> dict[str, Any]:
    """Traces, compiles and times a program.

    Args:
      jitted: from `jax.jit`.
      arguments: its arguments.
      images: of a call.
      work: of a call; counted in the traced program where it is None.
      call_with: makes the call from the compiled program, where it is not `compiled(*arguments)`.
    """
    begun = time.perf_counter()
    traced = jitted.trace(*arguments)
    work = work or count_work(traced.jaxpr)
    lowered = traced.lower()
    ready = time.perf_counter()
    compiled = lowered.compile()
    compile_seconds = time.perf_counter() - ready
    memory = compiled.memory_analysis()
    call = call_with(compiled) if call_with else lambda: compiled(*arguments)
    jax.block_until_ready(call())
    seconds = timed(call)
    median = statistics.median(seconds)
    return {
        "images": images,
        "seconds": median,
        "seconds_range": [min(seconds), max(seconds)],
        "groups": len(seconds),
        "seconds_per_image": median / images,
        "trace_seconds": ready - begun,
        "compile_seconds": compile_seconds,
        "flops": work.flops,
        "bytes": work.bytes,
        "arguments_bytes": memory.argument_size_in_bytes if memory else None,
        "temporary_bytes": memory.temp_size_in_bytes if memory else None,
        "peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        "text": counted_text(compiled.as_text()),
    }


def measure_ceilings(report: Report, sizes: programs.Sizes) -> None:
    """Rates of large products, of two convolutions and of copying, with which floors are made."""
    n = sizes.matrix

    def product(dtype, precision):
        def multiply(a, b):
            return jax.lax.dot(a, b, precision=precision)

        a = jax.random.normal(jax.random.key(0), (n, n), dtype)
        return run_program(jax.jit(multiply), (a, a))

    def convolution(side, channels):
        def convolve(x, kernel):
            return jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

        dtype = jnp.dtype(sizes.dtype)
        x = jax.random.normal(jax.random.key(0), (8, side, side, channels), dtype)
        kernel = jax.random.normal(jax.random.key(1), (3, 3, channels, channels), dtype)
        return run_program(jax.jit(convolve), (x, kernel))

    def copy():
        x = jnp.zeros(sizes.copied, jnp.float32)
        moved = Work(0.0, 2.0 * x.nbytes)
        return run_program(jax.jit(lambda x: x + 1.0), (x,), work=moved)

    highest = jax.lax.Precision.HIGHEST
    report.measure("ceiling", f"product {n}³, bfloat16", lambda: product(jnp.bfloat16, None))
    report.measure("ceiling", "copy in the device's memory, float32", copy)
    name = f"product {n}³, float32, default precision (TF32 on GPUs)"
    report.measure("ceiling", name, lambda: product(jnp.float32, None))
    name = f"product {n}³, float32, highest precision"
    report.measure("ceiling", name, lambda: product(jnp.float32, highest))
    for side, channels in ((n // 128 or 4, n // 16), (n // 8, n // 256 or 1)):
        name = f"convolution 3x3, 8 x {side}² x {channels}, {sizes.dtype}"
        report.measure("ceiling", name, functools.partial(convolution, side, channels))


def measure_synthesis(
    report: Report, sizes: programs.Sizes, variables: Any, forms: Sequence[str], batch: int
) -> None:
    """`G.synthesize` in each form; its work is that of the plain one."""
    work = None
    for form in forms:

        def run(form=form):
            nonlocal work
            if work is None:
                jitted, arguments = programs.synthesis(sizes, variables, "separable", batch)
                work = count_work(jitted.trace(*arguments).jaxpr)
            with programs.in_form(form) as named:
                jitted, arguments = programs.synthesis(sizes, variables, named, batch)
                return run_program(jitted, arguments, images=batch, work=work)

        report.measure("synthesis", f"{form}, batch {batch}", run)


def measure_parity(report: Report, sizes: programs.Sizes, variables: Any) -> None:
    """Largest differences of float32 images from the plain form's, and from the processor's."""
    plain: list[np.ndarray] = []

    def draw(form, device=None):
        with programs.in_form(form) as named:
            jitted, arguments = programs.synthesis(sizes, variables, named, 1, dtype="float32")
            if device is not None:
                arguments = jax.device_put(arguments, device)
            return np.asarray(jitted(*arguments), np.float64)

    def compare(form, device=None):
        image = draw(form, device)
        if not plain:
            plain.append(image)
        difference, scale = np.abs(image - plain[0]), np.abs(plain[0]).max()
        return {
            "largest_value": float(scale),
            "largest_difference": float(difference.max() / scale),
            "rms_difference": float(np.sqrt(np.square(difference).mean()) / scale),
        }

    for form in ("plain", "separable", "fused", "blocks"):
        report.measure("parity", form, functools.partial(compare, form))
    if jax.default_backend() != "cpu":
        report.measure(
            "parity",
            "separable, on the processor",
            lambda: compare("separable", jax.devices("cpu")[0]),
        )


def measure_inversion(report: Report, sizes: programs.Sizes, variables: Any, batch: int) -> None:
    """`Model.invert`, in the form that the backend decides."""

    def run():
        jitted, arguments = programs.inversion(sizes, variables, batch)
        return run_program(jitted, arguments, images=batch)

    report.measure("inversion", f"N = {sizes.iterations}, batch {batch}", run)


def measure_training(
    report: Report, sizes: programs.Sizes, batch: int, folder: Path, overrides: list[str]
) -> None:
    """The step of configs/interestyle_ffhq.py, in the form that the backend decides."""

    def run():
        config = programs.training_config(sizes, batch, folder, overrides)
        make_state, step, others = programs.training_step(config)
        state = make_state()

        def call_with(compiled):
            def call():
                nonlocal state
                state, metrics = compiled(state, *others)
                return metrics

            return call

        return run_program(step, (state, *others, ()), images=batch, call_with=call_with)

    report.measure("training", f"step, batch {batch}", run)


def device_facts() -> dict[str, Any]:
    """Where and with what this is measured."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "platform_version": " ".join(device.client.platform_version.split()),
        "num_devices": jax.device_count(),
        "memory_limit_bytes": (device.memory_stats() or {}).get("bytes_limit"),
        "processor_cores": os.cpu_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "form": backend.compute_fields()["form"],
        "versions": library_versions(),
        "git_commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0, or 2 or 1 with one line on stderr (`exit_status`)."""
    argv = sys.argv[1:] if argv is None else list(argv)
    return run_command(lambda: _run(argv), program="device_report")


def _run(argv: list[str]) -> None:
    parser = Parser(
        prog="python -m experiments.device_report",
        description="Measures this device; --config.field=value changes the training's config.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=4.0, help="at most (default 4)")
    parser.add_argument("--size", choices=sorted(programs.SIZES), default="full")
    parser.add_argument(
        "--batches", default=",".join(map(str, BATCHES)), help="of images, the important ones first"
    )
    parser.add_argument(
        "--forms", default=",".join(programs.FORMS), help="of the generator (default: all)"
    )
    parser.add_argument("--commit", help="of the code, where this is no checkout")
    parser.add_argument(
        "--trace", action="store_true", help="also profile a synthesis, in OUT/trace"
    )
    args, overrides = parser.parse_known_args(argv)
    batches, forms = _batches(args.batches), args.forms.split(",")
    for form in forms:
        if form not in programs.FORMS:
            raise InputError(f"--forms: {form!r}, expected some of {', '.join(programs.FORMS)}")
    facts = device_facts() | {"command": f"python -m experiments.device_report {' '.join(argv)}"}
    facts["git_commit"] = facts["git_commit"] or args.commit
    guesses = GUESSES if args.size == "full" else {}
    report = Report(args.out, minutes=args.minutes, facts=facts, guesses=guesses)
    stopped = _stop_in_time(report, args.minutes)
    measure_all(report, programs.SIZES[args.size], args, batches, forms, overrides)
    stopped.cancel()
    report.write()
    print(page(report.content), end="")


def measure_all(
    report: Report,
    sizes: programs.Sizes,
    args: argparse.Namespace,
    batches: Sequence[int],
    forms: Sequence[str],
    overrides: list[str],
) -> None:
    """All sections, of one batch after the other; parity after the first."""
    measure_ceilings(report, sizes)
    generator = registry.build(sizes.generator)
    variables = jax.device_put(programs.random_variables(generator))
    with tempfile.TemporaryDirectory(prefix="device_report_") as folder:
        for batch in batches:
            measure_synthesis(report, sizes, variables, forms, batch)
            measure_inversion(report, sizes, variables, batch)
            measure_training(report, sizes, batch, Path(folder), overrides)
            if batch == batches[0]:
                measure_parity(report, sizes, variables)
    if args.trace:
        jitted, arguments = programs.synthesis(sizes, variables, report.content["form"], batches[0])
        jax.block_until_ready(jitted(*arguments))
        with jax.profiler.trace(str(report.out / "trace")):
            jax.block_until_ready([jitted(*arguments) for _ in range(3)])


def _batches(text: str) -> list[int]:
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise InputError(f"--batches: {text!r}, expected numbers from 1 such as 8,1,16")
    return found


def _stop_in_time(report: Report, minutes: float) -> threading.Timer:
    """Ends the process when its time is over, also inside a compilation; what is measured stays."""

    def stop():
        report.write("what was being compiled or measured at the end of the minutes")
        print(page(report.content), end="", flush=True)
        os._exit(0)

    timer = threading.Timer(60.0 * minutes, stop)
    timer.daemon = True
    timer.start()
    return timer


if __name__ == "__main__":
    sys.exit(main())
