"""A case: one whole input, damaged by a seed, and the command that must say so or do without it."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np

from interestyle_jax import weight_files
from interestyle_jax.data.manifest import verify
from interestyle_jax.jobs.progress import checked_line
from interestyle_jax.weights import METADATA, VARIABLES, load_weights
from tests.robustness.command import Outcome, run_command, tree
from tests.robustness.damage import damage_file
from tests.robustness.whole_inputs import INPUTS

SECONDS = 60
ERRORS = ("interestyle: error: ", "convert_weights: ")
OUT, CANARY = "out", "canary"
# What commands say besides the error: progress bars, and what a resumed training found.
NOTICES = (
    "continuing with its default ",
    "interestyle: skipped: ",
    "interestyle: notice: ",
    "interestyle: more are skipped, as the report says",
    ": skipped ",
    "it/s]",
    "s/it]",
    "?, ?",
    "[00:",
    "[01:",
    ": resuming from step ",
    ": damaged (",
    "\r",
)
# libtiff writes lines of its own, "FunctionName: what it met", from native code.
TIFF = re.compile(r"\.tiff?\b")
FROM_LIBTIFF = re.compile(r"(^|[^ ])[A-Z][A-Za-z0-9]*(?<!Error)(?<!Warning): [A-Z\"]")


@dataclasses.dataclass(frozen=True)
class Case:
    """What is damaged, and the command line that reads it."""

    kind: str
    argv: tuple[str, ...]
    damage: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} [{'; '.join(self.damage)}]: interestyle {' '.join(self.argv)}"


def prepare(seed: int, number: int, whole: Path, folder: Path) -> Case:
    """Draws case `number` of `seed`, and lays its damaged input out in the new `folder`."""
    kinds = [name for name, entry in INPUTS.items() for _ in range(entry.share)]
    kind = kinds[number % len(kinds)]
    entry = INPUTS[kind]
    rng = np.random.default_rng([seed, number])
    lay_out(kind, whole, folder)
    files = sorted(p for pattern in entry.files for p in folder.glob(pattern) if p.is_file())
    damaged = [files[i] for i in rng.permutation(len(files))[: rng.choice([1, 1, 1, 2])]]
    done = tuple(damage_file(rng, path, folder / CANARY) for path in damaged)
    if kind == "weights" and rng.random() < 0.5:
        done += _sign_again(folder / "weights" / "inverter")
    command = entry.commands[rng.integers(len(entry.commands))]
    return Case(kind, words(command, damaged[0].name), done)


def lay_out(kind: str, whole: Path, folder: Path) -> None:
    """Copies what a kind of case is about, and needs, into the new `folder`."""
    folder.mkdir()
    roots = {pattern.split("*")[0].rstrip("/") for pattern in INPUTS[kind].files}
    for name in sorted({*roots, *INPUTS[kind].needs}):
        _copy(whole / name, folder / name)
    if kind == "job":
        # A job knows its input and weights by their whole paths.
        record = folder / "inverted" / "progress.jsonl"
        header, *lines = record.read_text().replace(str(whole), str(folder)).splitlines()
        signed = [checked_line(json.loads(line)) for line in lines]
        record.write_bytes(header.encode() + b"\n" + b"".join(signed))


def words(command: str, file: str) -> tuple[str, ...]:
    """The command line of a pattern of INPUTS, with the damaged file's name."""
    return tuple(command.replace("OUT", OUT).replace("FILE", file).split())


def run(case: Case, folder: Path, *, seconds: float = SECONDS) -> tuple[Outcome, list[str]]:
    """Runs a case; returns its outcome and the rules it broke, in words."""
    before = tree(folder)
    before.pop("tmp", None)
    outcome = run_command(case.argv, folder, seconds=seconds)
    return outcome, _broken_rules(case, outcome, folder, before)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


def _sign_again(directory: Path) -> tuple[str, ...]:
    """Writes the digests of damaged files into the metadata, so that they are believed."""
    try:
        metadata = json.loads((directory / METADATA).read_text())
        metadata["files"] = weight_files.digests(directory / VARIABLES)
    except (OSError, ValueError, TypeError, RecursionError):
        return ()
    (directory / METADATA).write_text(json.dumps(metadata))
    return ("digests made to fit",)


def _broken_rules(case: Case, outcome: Outcome, folder: Path, before: dict[str, str]) -> list[str]:
    broken = []
    if outcome.hung:
        broken.append("the command hung")
    if outcome.status not in (0, 1, 2):
        broken.append(f"status {outcome.status}, expected 0, 1 or 2")
    if "Traceback" in outcome.stderr + outcome.stdout:
        broken.append("a traceback")
    lines = [line for line in outcome.stderr.replace("\r", "\n").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(ERRORS)]
    if outcome.status in (1, 2) and (len(errors) != 1 or lines[-1] != errors[0]):
        broken.append(f"{len(errors)} lines of error at the end, expected one")
    if outcome.status == 0 and errors:
        broken.append("an error with status 0")
    noise = [x for x in lines if x not in errors and not any(word in x for word in NOTICES)]
    if any(TIFF.search(word) for word in (*case.argv, *case.damage)):
        noise = [line for line in noise if not FROM_LIBTIFF.search(line)]
    if noise:
        broken.append(f"lines on stderr that are none of ours: {noise[0][:200]!r}")
    if (folder / CANARY).exists():
        broken.append("code of the input was executed")
    broken += _wrong_files(case, outcome, folder, before)
    return broken


def _wrong_files(case: Case, outcome: Outcome, folder: Path, before: dict[str, str]) -> list[str]:
    """Inputs that changed, what was left behind, and results that are not whole."""
    after, broken = tree(folder), []
    # Python keeps what it compiled of a config, and `data` its finished shards, to continue with;
    # `tmp` itself is the caller's.
    after = {k: v for k, v in after.items() if k != "tmp" and "__pycache__" not in k}
    root = _root(case)
    own = {name for name in after.keys() | before.keys() if _is_within(name, root)}
    changed = sorted(
        name for name in after.keys() | before.keys()
        if name not in own and not _is_within(name, f".{OUT}.building")
        and after.get(name) != before.get(name)
    )  # fmt: skip
    if changed:
        broken.append(f"changed or left behind: {', '.join(changed[:5])}")
    # Images are done one by one, and a run keeps its records: both are resumed.
    goes_on = case.argv[0] in ("train", "masks", "evaluate", "edit", "mix") or case.kind in (
        "image",
        "job",
    )
    goes_on &= case.argv[0] != "data"
    hidden = [n for n in own if Path(n).name.startswith(".") or "tmp" in Path(n).name]
    hidden = [n for n in hidden if n not in before and (outcome.status == 0 or not goes_on)]
    if hidden:
        broken.append(f"temporary files left: {', '.join(sorted(hidden)[:5])}")
    if outcome.status != 0 and not goes_on and own:
        broken.append(f"half-written: {', '.join(sorted(own)[:5])}")
    try:
        for name in own:
            if name.endswith(".json") and name not in before and "broken_" not in name:
                json.loads((folder / name).read_text())
        if outcome.status == 0:
            _check_whole(case, folder)
    except Exception as error:
        broken.append(f"results that are not whole: {type(error).__name__}: {error}")
    return broken


def _root(case: Case) -> str:
    """Where the command writes."""
    named = {w.partition("=")[0]: w.partition("=")[2] for w in case.argv}
    return named.get("--workdir") or named.get("--out") or OUT


def _is_within(name: str, root: str) -> bool:
    return name == root or name.startswith((f"{root}/", f"{Path(root).parent}/broken_"))


def _check_whole(case: Case, folder: Path) -> None:
    """Raises where results of a command that said all is well cannot be read."""
    out, command = folder / _root(case), case.argv[0]
    if command == "invert":
        with np.load(out / "latents.npz", allow_pickle=False) as latents:
            assert len(latents["names"]) == len(latents["w_plus"]) > 0
            assert np.isfinite(latents["w_plus"]).all()
            assert all((out / f"{name}.png").is_file() for name in latents["names"])
        assert (out / "grid.png").is_file() and (out / "report.json").is_file()
    elif command in ("edit", "mix"):
        with np.load(out / "latents.npz", allow_pickle=False) as latents:
            assert len(latents["names"]) == len(latents["w_plus"]) > 0
        assert (out / "sheet.png").is_file() and (out / "report.json").is_file()
    elif command == "evaluate":
        assert json.loads((out / "metrics.json").read_text())["num_images"] > 0
        assert (out / "table.md").is_file()
    elif command == "convert" and "--to=pytorch" not in case.argv:
        load_weights(out)
    elif command == "convert":
        assert out.stat().st_size > 0
    elif command == "data" and out.exists():
        verify(out)
    elif command == "masks":
        assert (out / "report.json").is_file()
