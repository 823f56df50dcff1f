"""Many uploads to the page at once: who is answered, how long it takes, and the page's memory.

    python -m experiments.page_visitors --out=docs/results/page --visitors=50 --size=64,4000

For each --size it starts `interestyle serve`, waits until the page is there, and has the visitors
upload an avatar of so many pixels a side at the same moment, each by a client of its own. Memory is
the page's resident set as Linux counts it. Writes `DIR/visitors.json` and `DIR/visitors.md`. Runs
in an environment that has the extra [serve] (docs/page.md). With --url and --pid the page is one
that runs already, and what was found is printed as JSON.
"""

import argparse
import collections
import contextlib
import json
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.report_files import write_report
from interestyle_jax.commands.options import Parser, add_out_option, count
from interestyle_jax.data.avatars.world import sample
from interestyle_jax.errors import InputError
from interestyle_jax.exit_status import run_command
from interestyle_jax.library_versions import library_versions

AVATAR = 3
SAMPLE_SECONDS, TIMEOUT_SECONDS = 0.05, 300
TIMES, MOMENTS = ("first", "median", "last"), ("before", "largest", "after")


def visit(url: str, pid: int, upload: Path, visitors: int) -> dict[str, Any]:
    """Has visitors upload an image at the same moment.

    Args:
      url: of the page.
      pid: the page's process.
      upload: the image.
      visitors: how many.

    Returns:
      {"visitors", "answered", "refused": {message: how many}, "seconds": {"first", "median",
      "last"} of those who were answered, "memory_mb": {"before", "largest", "after"}}.
    """
    from gradio_client import Client, handle_file

    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"verbose": False, "analytics_enabled": False}
        # Its own is five seconds; a browser waits for minutes.
        options["httpx_kwargs"] = {"timeout": TIMEOUT_SECONDS}
        clients = [Client(url, download_files=folder, **options) for _ in range(visitors)]
        ready, ended = threading.Barrier(visitors + 1), threading.Event()
        seconds: list[float] = []
        refused: list[str] = []
        memory = [resident_mb(pid)]

        def upload_one(client: Any) -> None:
            ready.wait()
            try:
                client.predict(handle_file(upload), api_name="/invert")
                seconds.append(time.monotonic() - start)
            except Exception as error:
                refused.append(str(error))

        def watch() -> None:
            while not ended.wait(SAMPLE_SECONDS):
                memory.append(resident_mb(pid))

        watcher = threading.Thread(target=watch)
        threads = [threading.Thread(target=upload_one, args=(client,)) for client in clients]
        for thread in (watcher, *threads):
            thread.start()
        start = time.monotonic()
        ready.wait()
        for thread in threads:
            thread.join()
        ended.set()
        watcher.join()
        return summary(seconds, refused, [*memory, resident_mb(pid)])


def summary(
    seconds: Sequence[float], refused: Sequence[str], memory: Sequence[float]
) -> dict[str, Any]:
    """What `visit` returns.

    Args:
      seconds: of each visitor who was answered.
      refused: what each of the others was told.
      memory: the page's, in MB, over time.
    """
    times = (min(seconds), float(np.median(seconds)), max(seconds)) if seconds else ()
    return {
        "visitors": len(seconds) + len(refused),
        "answered": len(seconds),
        "refused": dict(collections.Counter(refused)),
        "seconds": {name: round(x, 2) for name, x in zip(TIMES, times, strict=False)},
        "memory_mb": {
            name: round(x)
            for name, x in zip(MOMENTS, (memory[0], max(memory), memory[-1]), strict=True)
        },
    }


def resident_mb(pid: int) -> float:
    """Memory that a process holds now, in MB of 2^20 bytes.

    Raises:
      InputError: there is no such process, or no /proc.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError as error:
        raise InputError(f"--pid: no process {pid} in /proc ({error})") from error
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


def write_upload(path: Path, size: int) -> Path:
    """Writes an avatar of the test split, with its obstacle, enlarged to `size`."""
    Image.fromarray(sample(AVATAR, split="test")["image"]).resize((size, size)).save(path)
    return path


@contextlib.contextmanager
def running_page(weights: str, port: int) -> Iterator[tuple[str, int]]:
    """The address of a page and its process' number."""
    command = [sys.executable, "-m", "interestyle_jax", "serve", f"--weights={weights}"]
    process = subprocess.Popen(
        [*command, f"--port={port}"], stdout=subprocess.PIPE, stderr=sys.stderr, text=True
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.startswith("http"):
            raise InputError(f"interestyle serve: ended with status {process.wait()}")
        yield line.split()[0], process.pid
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a size of the uploads."""
    lines = [
        "| pixels | visitors | answered | first, median, last | memory before, at most, after |",
        "|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        times = ", ".join(f"{row['seconds'].get(x, np.nan):.1f}" for x in TIMES)
        memory = ", ".join(str(row["memory_mb"][x]) for x in MOMENTS)
        lines.append(
            f"| {row['size']} | {row['visitors']} | {row['answered']} | {times} s | {memory} MB |"
        )
    return "\n".join(lines) + "\n"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=count, default=50)
    parser.add_argument("--size", type=_sizes, default=(64,), help="of the uploads (default 64)")
    parser.add_argument("--weights", default="avatar_interestyle", metavar="NAME_OR_DIR")
    parser.add_argument("--port", type=count, default=7918)
    parser.add_argument("--url", help="of a page that runs")
    parser.add_argument("--pid", type=count, help="its process")
    add_out_option(parser, required=False)
    return parser.parse_args(argv)


def _sizes(text: str) -> list[int]:
    return [count(word) for word in text.split(",")]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _run(parse(argv), argv), program="page_visitors")


def _run(args: argparse.Namespace, argv: Sequence[str]) -> int:
    runs = args.url is not None
    if runs != (args.pid is not None) or runs == (args.out is not None):
        raise InputError("--out: expected it, or --url and --pid")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in args.size:
            upload = write_upload(Path(folder) / f"{size}.png", size)
            # Memory that one size took would count for the next.
            given = contextlib.nullcontext((args.url, args.pid))
            with given if runs else running_page(args.weights, args.port) as (url, pid):
                found = visit(url, pid, upload, args.visitors)
            rows.append({"size": size, "bytes": upload.stat().st_size, **found})
    if runs:
        print(json.dumps(rows))
        return 0
    report = {
        "command": shlex.join(["python", "-m", "experiments.page_visitors", *argv]),
        "weights": args.weights,
        "rows": rows,
        "versions": library_versions(),
    }
    write_report(args.out, report, markdown(rows), figures="visitors.json", table="visitors.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
