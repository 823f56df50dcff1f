"""How many images a second come out of data sets.

    python -m experiments.benchmark_data --data=data/ffhq [--data=data/ffhq_png]

Prints a Markdown table: one thread decoding records, and batches of the training's pipeline with
each number of worker processes, in brackets per second of processor time, which other load on the
machine changes least.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interestyle_jax.commands.options import Parser
from interestyle_jax.data.data_set import Examples, open_data_set
from interestyle_jax.data.pipeline import training_batches
from interestyle_jax.exit_status import run_command


def measure(
    data_dir: Path,
    *,
    split: str,
    fields: Sequence[str],
    batch_size: int,
    workers: Sequence[int],
    seconds: float,
) -> dict[str, Any]:
    """Images a second of one data set.

    Args:
      data_dir, split, fields: what is read.
      batch_size: images a batch.
      workers: numbers of worker processes to measure the pipeline with.
      seconds: how long each measurement takes, at least.

    Returns:
      {"images", "side", "encoding", "bytes" (a record, mean), "core" (images a second of
      processor time, one thread), "pipeline": {workers: (images a second, images a second of
      processor time, all processes together, or None where the system does not count it)}}. The
      pipeline's first batches, while processes start, do not count; nothing is kept decoded.

    Raises:
      InputError: no such data set, split or field.
    """
    examples = Examples(data_dir, split, fields, cache=False)
    info = open_data_set(data_dir).info
    feature = info.features[fields[0]]
    count = read = 0
    begun, until = time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < until:
        examples[read % len(examples)]
        read += 1
    core = read / (time.process_time() - begun)
    rates = {}
    for number in workers:
        with training_batches(
            data_dir,
            split,
            batch_size=batch_size,
            seed=0,
            fields=fields,
            num_workers=number,
            cache=False,
        ) as batches:
            # More than what the processes and the queue hold ready.
            for _ in range(8 + 4 * number):
                next(batches)
            count, begun, used = 0, time.perf_counter(), _processor_seconds()
            while time.perf_counter() - begun < seconds:
                next(batches)
                count += batch_size
            wall, now = time.perf_counter() - begun, _processor_seconds()
            rates[number] = (count / wall, None if now is None else count / (now - used))
    return {
        "images": len(examples),
        "side": feature.shape[0],
        "encoding": feature.encoding_format,
        "bytes": info.splits[split].num_bytes / len(examples),
        "core": core,
        "pipeline": rates,
    }


def _processor_seconds() -> float | None:
    """Processor time of this process and its workers so far; None without /proc."""
    total = time.process_time()
    for child in multiprocessing.active_children():
        try:
            # Behind the name in brackets: user and system time are the 12th and 13th.
            fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """The results as a Markdown table, one row a data set."""
    workers = list(next(iter(results.values()))["pipeline"])
    head = ["data", "images", "KiB each", "one core"]
    head += [f"{number} workers" for number in workers]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for name, result in results.items():
        cells = [
            f"{name} ({result['encoding']}, {result['side']})",
            str(result["images"]),
            f"{result['bytes'] / 1024:.0f}",
            f"{result['core']:.0f}",
            *(
                f"{wall:.0f} ({'–' if core is None else f'{core:.0f}'})"
                for wall, core in result["pipeline"].values()
            ),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0, or 2 or 1 with one line on stderr (`exit_status`)."""
    return run_command(lambda: _run(argv), program="benchmark")


def _run(argv: Sequence[str] | None) -> None:
    name = "experiments.benchmark_data"
    parser = Parser(prog=f"python -m {name}", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, action="append", required=True, metavar="DIR")
    parser.add_argument("--split", default="train")
    parser.add_argument("--fields", default="image,interest_mask", metavar="A,B")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", default=f"0,{os.cpu_count()}", metavar="N,M")
    parser.add_argument("--seconds", type=float, default=10.0, help="a measurement (default 10)")
    args = parser.parse_args(argv)
    workers = [int(number) for number in args.workers.split(",")]
    results = {
        path.name: measure(
            path,
            split=args.split,
            fields=tuple(args.fields.split(",")),
            batch_size=args.batch_size,
            workers=workers,
            seconds=args.seconds,
        )
        for path in args.data
    }
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"images a second, batches of {args.batch_size}, {os.cpu_count()} cores{load}\n")
    print(markdown(results))


if __name__ == "__main__":
    sys.exit(main())
