"""Runs in a bucket: killed and resumed, the network cut, no rights. Against a real server."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from interestyle_jax.data.avatar_builder import write_avatars
from tests.training.bucket_server import Line, emulator, forbidding
from tests.training.test_train_loop import DRIVER, ROOT, STEPS, final_state, short_run

BUCKET = "runs-bucket"
# Of the train loop's driver: with the network cut, and repeated sooner than after seconds.
CUTTING = """
import asyncio, types
import gcsfs.retry
from interestyle_jax.training import run_files
gcsfs.retry.asyncio = types.SimpleNamespace(sleep=lambda s: asyncio.sleep(s / 20))
# TensorStore asks a bucket that is gone for a quarter of an hour.
from orbax.checkpoint._src.serialization import tensorstore_utils
for context in (tensorstore_utils._BASE_TS_CONTEXT, tensorstore_utils._DEFAULT_OCDBT_TS_CONTEXT):
    context["gcs_request_retries"] = {
        "max_retries": 6, "initial_delay": "50ms", "max_delay": "500ms"
    }
if sys.argv[3] in ("cutting", "blinking"):
    cut, publish, calls = sys.argv[5], run_files.RunFiles.publish, []
    def publish_cut(self):
        calls.append(1)
        if len(calls) == int(sys.argv[4]):
            open(cut, "w").close()
            if sys.argv[3] == "blinking":
                import threading
                threading.Timer(0.3, os.unlink, [cut]).start()
        publish(self)
    run_files.RunFiles.publish = publish_cut
from interestyle_jax.exit_status import run_command
def work():
    print(train_loop.train(config, sys.argv[2], command=["test"])["status"])
sys.exit(run_command(work, program="interestyle"))
"""
PROGRAM = DRIVER.partition("report = train_loop")[0] + CUTTING


def program(url: str) -> dict[str, str]:
    """The environment of a process whose Google Cloud Storage is there."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }


def objects(url: str, folder: Path, *, copy: str = "") -> list[str]:
    """Names of the bucket's objects; those below `copy` are copied into the folder."""
    code = (
        "import sys; from pathlib import Path; from interestyle_jax.buckets import Bucket\n"
        f"bucket = Bucket('gs://{BUCKET}/' + sys.argv[1]); found = bucket.listing()\n"
        "bucket.download(found if sys.argv[1] else [], Path(sys.argv[2]))\n"
        "print('\\n'.join(found))"
    )
    command = [sys.executable, "-c", code, copy, str(folder)]
    done = subprocess.run(command, env=program(url), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_a_run_in_a_bucket_killed_cut_off_and_resumed(tiny_config, tmp_path):
    data, cut = tmp_path / "avatars", tmp_path / "cut"
    write_avatars(data, sizes={"train": 16, "validation": 8, "test": 2}, size=32, workers=1)
    config = short_run(tiny_config(), data)

    def run(workdir, when="never", step=0):
        path = tmp_path / "config.json"
        path.write_text(config.to_json())
        environment = program(line.url) | {
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "INTERESTYLE_CACHE": str(tmp_path / "cache"),
            "TMPDIR": str(tmp_path),
        }
        command = [sys.executable, "-c", PROGRAM, path, workdir, when, str(step), cut]
        done = subprocess.run(
            [str(word) for word in command], env=environment, capture_output=True, text=True
        )
        return done.returncode, done.stdout, done.stderr

    with emulator() as url:
        line = Line(url, str(cut))
        subprocess.run(
            [
                *(sys.executable, "-c"),
                "import sys; from pathlib import Path; import fsspec\n"
                f"files = fsspec.filesystem('gs'); files.mkdir('{BUCKET}')\n"
                f"files.put(sys.argv[1], 'gs://{BUCKET}/data/avatars', recursive=True)",
                str(data),
            ],
            env=program(url),
            check=True,
            capture_output=True,
        )
        status, _, error = run(tmp_path / "whole")
        assert status == 0, error
        step, want = final_state(tmp_path / "whole")

        # Data from the bucket, too, and the same data by their content.
        config.data.dir = f"gs://{BUCKET}/data/avatars"
        place = f"gs://{BUCKET}/runs/killed"
        status, _, error = run(place, "saving", 4)
        assert status == -signal.SIGKILL, error
        # The network is gone for a moment, which is waited for, then for long.
        status, _, error = run(place, "blinking", 2)
        assert status == 0, error
        assert f"{place}: resuming from step" in error
        objects(url, tmp_path / "killed", copy="runs/killed")
        assert (step, want.keys()) == (STEPS, (got := final_state(tmp_path / "killed")[1]).keys())
        for name in want:
            np.testing.assert_array_equal(got[name], want[name], err_msg=name)
        lines = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
        logged = [json.loads(text)["step"] for text in lines]
        assert logged == sorted(logged) and set(logged) == set(range(1, STEPS + 1))
        report = json.loads((tmp_path / "killed" / "report.json").read_text())
        assert report["status"] == "completed"

        place = f"gs://{BUCKET}/runs/cut"
        status, _, error = run(place, "cutting", 4)
        assert status == 1
        assert error.splitlines()[-1].startswith(f"interestyle: error: {place}: ")
        cut.unlink()
        found = objects(url, tmp_path / "cut_off", copy="runs/cut")
        marks = [re.fullmatch(r"checkpoints/(\d+)/commit_success\.txt", name) for name in found]
        whole = [int(mark[1]) for mark in marks if mark]
        weights = [name for name in found if name.startswith("weights/")]
        if "weights/metadata.json" in weights:
            from interestyle_jax.weights import load_weights

            load_weights(tmp_path / "cut_off" / "weights")
        status, _, error = run(place)
        assert status == 0, error
        # From the newest whole step; one that was not is as good as not there.
        resumed = re.search(r"resuming from step (\d+)", error)
        assert (int(resumed[1]) if resumed else 0) == max(whole, default=0)
        objects(url, tmp_path / "again", copy="runs/cut")
        got = final_state(tmp_path / "again")[1]
        for name in want:
            np.testing.assert_array_equal(got[name], want[name], err_msg=name)
        line.close()
        # No run left its local folder, but the killed one.
        assert len(list(tmp_path.glob("interestyle-run-*"))) == 1

    with forbidding() as url:
        done = subprocess.run(
            [*(sys.executable, "-m", "interestyle_jax", "train", "--config=demo:smoke")]
            + [f"--workdir=gs://{BUCKET}/runs/none"],
            env=program(url),
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
    assert done.returncode == 2, done.stderr
    assert f"error: gs://{BUCKET}/runs/none: no rights to it" in done.stderr
    assert done.stderr.count("\n") == 1
