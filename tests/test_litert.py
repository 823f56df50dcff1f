"""Networks of MediaPipe under LiteRT: shapes, silence, and clear errors."""

import concurrent.futures
import contextlib
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from interestyle_jax import litert
from interestyle_jax.errors import InputError
from interestyle_jax.litert import ASSETS, LiteRTModel

NETWORKS = {
    "face_detection_short_range": ((1, 128, 128, 3), [(1, 896, 16), (1, 896, 1)]),
    "face_landmark": ((1, 192, 192, 3), [(1, 1, 1, 1404), (1, 1, 1, 1)]),
    "selfie_segmentation": ((1, 256, 256, 3), [(1, 256, 256, 1)]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_shipped_networks_run(name):
    model = LiteRTModel(name)
    shape, outputs = NETWORKS[name]
    assert model.input_shape == shape
    assert model.output_shapes == outputs
    zeros, ones = (model(np.full(shape, value, np.float32)) for value in (0, 1))
    for a, b, output in zip(zeros, ones, outputs, strict=True):
        assert a.shape == output and a.dtype == np.float32
        assert np.isfinite(a).all() and not np.array_equal(a, b)


def test_a_path_is_the_same_network_and_threads_do_not_mix():
    by_name = LiteRTModel("selfie_segmentation")
    by_path = LiteRTModel(ASSETS / "selfie_segmentation.tflite", num_threads=2)
    images = np.random.default_rng(0).random((8, *by_name.input_shape), np.float32)
    expected = [by_name(x)[0] for x in images]
    found = [None] * len(images)

    def run(i):
        found[i] = by_path(images[i])[0]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_threads_make_their_interpreters_one_at_a_time(monkeypatch):
    making, together = [], []

    @contextlib.contextmanager
    def watched():
        # Standard error is turned aside here; of two at a time one would be lost.
        making.append(None)
        together.append(len(making))
        time.sleep(0.01)
        yield
        making.pop()

    monkeypatch.setattr(litert, "_without_info_lines", watched)
    model = LiteRTModel("selfie_segmentation")
    x = np.zeros(model.input_shape, np.float32)
    started = threading.Barrier(4)

    def work(_):
        started.wait()
        return model(x)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(work, range(4)))) == 4
    assert together == [1] * 5


def test_nothing_is_written_on_stdout_or_stderr():
    code = (
        "import os, numpy as np\n"
        "from interestyle_jax import litert\n"
        "litert.LiteRTModel('face_landmark')(np.zeros((1, 192, 192, 3), np.float32))\n"
        "with litert._without_info_lines():\n"
        "    os.write(2, b'INFO: noise\\nan error\\n')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0
    assert (done.stdout, done.stderr) == (b"", b"an error\n")


def test_missing_package_is_told_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(InputError, match=r"pip install 'interestyle_jax\[photos\]'"):
        LiteRTModel("face_landmark")


def test_bad_files_and_shapes_are_told(tmp_path):
    with pytest.raises(InputError, match="no such file, expected .* selfie_segmentation"):
        LiteRTModel("face_landmarks")
    whole = (ASSETS / "face_landmark.tflite").read_bytes()
    for content in (b"", b"no network", whole[: len(whole) // 2]):
        broken = tmp_path / "broken.tflite"
        broken.write_bytes(content)
        with pytest.raises(InputError, match="broken.tflite: not a network"):
            LiteRTModel(broken)
    with pytest.raises(ValueError, match=r"input \[192, 192, 3\], expected \[1, 192, 192, 3\]"):
        LiteRTModel("face_landmark")(np.zeros((192, 192, 3), np.float32))
