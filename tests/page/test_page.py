"""The page as a visitor's program meets it, in an environment that has Gradio."""

import json
import signal
import subprocess

import numpy as np
import pytest
from PIL import Image

from interestyle_jax.data.avatars.world import sample
from interestyle_jax.jobs.latents import LatentFile
from tests.page.conftest import ROOT
from tests.page.test_uploads import write_bomb

# Runs in that environment: FOLDER has the images; prints what it got as JSON.
CLIENT = r"""
import json, sys
from pathlib import Path
from gradio_client import Client, handle_file

url, folder = sys.argv[1], Path(sys.argv[2])

def client():
    return Client(url, verbose=False, analytics_enabled=False, download_files=folder / "got")

def told(call):
    try:
        return {"result": call()}
    except Exception as error:
        return {"error": str(error)}

def image(name):
    return handle_file(folder / name)

one = client()
count = len(one.view_api(return_format="dict")["named_endpoints"]["/edit"]["parameters"])
said = {"endpoints": sorted(one.view_api(return_format="dict")["named_endpoints"])}
said["early"] = told(lambda: one.predict(*[0] * count, api_name="/edit"))
said["told"] = []
# Gradio passes on what is told last every tenth of a second; an inversion may be shorter.
for _ in range(20):
    job = one.submit(image("a.png"), api_name="/invert")
    gallery, last = job.result()
    updates = job.communicator.updates
    while not updates.empty():
        progress = getattr(updates.get_nowait(), "progress_data", None)
        said["told"] += [unit.desc for unit in progress or []]
    if "inverting" in said["told"]:
        break
said["labels"] = [entry["caption"] for entry in gallery]
said["last"] = last
said["plain"] = one.predict(*[0] * count, api_name="/edit")
said["edited"] = one.predict(0.5, *[0] * (count - 1), api_name="/edit")
said["mixed"] = one.predict(image("b.png"), ["coarse"], 1, api_name="/mix")
said["pasted"] = one.predict(*[0] * count, api_name="/paste")
said["files"] = one.predict(*[0] * count, api_name="/download")
said["avatar"] = len(one.predict(5, api_name="/example")[0])
for name in ("bomb.png", "text.png"):
    said[name] = told(lambda: one.predict(image(name), api_name="/invert"))
# Another visitor sees nothing of it.
said["other"] = told(lambda: client().predict(*[0] * count, api_name="/edit"))
print(json.dumps(said))
"""


@pytest.mark.slow
def test_page_answers_its_visitors(python, page, tmp_path):
    url, process = page
    for name, index in (("a.png", 3), ("b.png", 5)):
        Image.fromarray(sample(index, split="test")["image"]).save(tmp_path / name)
    write_bomb(tmp_path / "bomb.png", 20000)
    (tmp_path / "text.png").write_text("no image")
    done = subprocess.run(
        [python, "-c", CLIENT, url, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    expected = ["/download", "/edit", "/example", "/invert", "/mix", "/paste", "/text"]
    assert said["endpoints"] == expected
    assert said["labels"] == ["image", "interest mask", "ŷ₁", "ŷ₂", "ŷ₃", "ŷ₄", "ŷ₅"]
    assert "inverting" in said["told"]
    assert said["avatar"] == 7
    plain, last, edited, mixed = (
        np.array(Image.open(said[name])) for name in ("plain", "last", "edited", "mixed")
    )
    np.testing.assert_array_equal(plain, last)
    assert (edited != plain).any() and (mixed != plain).any()
    assert (np.array(Image.open(said["pasted"])) != plain).any()
    assert LatentFile(said["files"][0]).shape == (1, 5, 10, 512)
    assert "nothing is inverted yet" in said["early"]["error"]
    assert "nothing is inverted yet" in said["other"]["error"]
    assert "too many pixels" in said["bomb.png"]["error"]
    assert "is not an image that is read here" in said["text.png"]["error"]

    arguments = ["--visitors=50", f"--url={url}", f"--pid={process.pid}"]
    done = subprocess.run(
        [python, "-m", "experiments.page_visitors", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (many,) = json.loads(done.stdout.splitlines()[-1])
    assert (many["visitors"], many["answered"], many["refused"]) == (50, 50, {})
    assert many["memory_mb"]["largest"] < many["memory_mb"]["before"] + 200

    (folder,) = tmp_path.glob("interestyle-page-*")
    assert list(folder.glob("results-*"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert not folder.exists()
    assert (tmp_path / "log").read_text() == ""
