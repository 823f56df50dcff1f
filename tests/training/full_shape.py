"""The paper's networks at full size through the whole chain, on this machine; run by hand.

    python tests/training/full_shape.py ../shared full_shape

Portraits are aligned, segmented and written as a data set; StyleGAN2 at 1024 and ArcFace get the
weights of the golden data's rule; `configs/interestyle_ffhq.py` then trains three steps of batch 2
and saves, is killed in the fourth, and resumed to the sixth. Prints status, time and peak memory of
every command. Takes about half an hour on two cores, and 16 GiB.
"""

import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEPS, SAVED = 6, 3


def write_checkpoints(golden: Path, folder: Path) -> None:
    """psp.pt (its decoder is the 1024 generator) and arcface.pth, by the golden data's rule."""
    import torch

    spec = importlib.util.spec_from_file_location("goldenfill", golden / "goldenfill.py")
    goldenfill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(goldenfill)

    def fill(manifest, section):
        path = golden / "manifests" / f"{manifest}.json"
        entries = json.loads(path.read_text())["sections"][section]
        return {k: torch.from_numpy(v) for k, v in goldenfill.fill_all(entries).items()}

    content = {
        "state_dict": fill("psp_ffhq", "state_dict"),
        "latent_avg": fill("psp_ffhq", "latent_avg")["latent_avg"],
        "opts": {"encoder_type": "GradualStyleEncoder", "output_size": 1024, "input_nc": 3},
    }
    torch.save(content, folder / "psp.pt")
    torch.save(fill("arcface_ir_se50", "state_dict"), folder / "arcface.pth")


def run(name: str, *command: str, kill_when: Callable[[], bool] | None = None) -> None:
    """Runs a command of the package in a process of its own and prints what it took."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", *command], env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    if kill_when is not None:
        while not kill_when():
            time.sleep(0.5)
            if process.poll() is not None:
                sys.exit(f"{name}: ended by itself with status {process.returncode}")
        process.kill()
    _, status, used = os.wait4(process.pid, 0)
    peak = used.ru_maxrss / 2**20
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    seconds = time.monotonic() - begun
    processor = used.ru_utime + used.ru_stime
    print(
        f"{name}: status {code}, {seconds:.0f} s ({processor:.0f} s of processor time), "
        f"peak memory {peak:.2f} GiB",
        flush=True,
    )
    if code != (-9 if kill_when else 0):
        sys.exit(f"{name} failed")


def main(shared: Path, out: Path) -> None:
    """Runs the chain below `out`."""
    out.mkdir(parents=True)
    # In a process of its own: a child's peak memory counts what its parent holds.
    spawn = multiprocessing.get_context("spawn")
    writer = spawn.Process(target=write_checkpoints, args=(shared / "golden", out))
    writer.start()
    writer.join()
    weights, workdir = out / "weights", out / "run"
    tool, command = "tools.convert_weights", "interestyle_jax"
    run("generator", tool, f"{out}/psp.pt", f"{weights}/stylegan2_ffhq", "--part=generator")
    run("arcface", tool, f"{out}/arcface.pth", f"{weights}/arcface")
    run("align", command, "align", f"--input={shared}/portraits", f"--out={out}/aligned")
    run(
        "masks", command, "masks", "--provider=selfie", f"--images={out}/aligned",
        f"--out={out}/masks",
    )  # fmt: skip
    run(
        "data", command, "data", f"--images={out}/aligned", f"--masks={out}/masks/interest",
        "--size=256", f"--out={out}/data",
    )  # fmt: skip
    train = (
        command, "train", f"--config={ROOT}/configs/interestyle_ffhq.py", f"--workdir={workdir}",
        f"--config.data.dir={out}/data", "--config.data.workers=0",
        f"--config.weights.generator={weights}/stylegan2_ffhq",
        f"--config.weights.id={weights}/arcface", f"--config.weights.trunk={weights}/arcface",
        "--config.batch_size=2", f"--config.num_steps={STEPS}",
        f"--config.checkpoint_every={SAVED}", "--config.log_every=1",
        "--config.image_every=1000", "--config.validation_samples=2",
        "--config.compute_dtype=float32",
    )  # fmt: skip

    def saved_and_gone_on() -> bool:
        lines = workdir / "metrics.jsonl"
        steps = lines.read_text().splitlines() if lines.exists() else []
        there = (workdir / "checkpoints" / str(SAVED)).is_dir()
        return there and bool(steps) and json.loads(steps[-1])["step"] > SAVED

    run("train, killed", *train, kill_when=saved_and_gone_on)
    run("train, resumed", *train)
    print((workdir / "metrics.jsonl").read_text())
    report = json.loads((workdir / "report.json").read_text())
    print({k: report[k] for k in ("status", "last_step", "images_per_second")})


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
