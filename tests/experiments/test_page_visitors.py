"""Many uploads to the page, by stand-ins for its clients."""

import os
import sys
import threading
from types import SimpleNamespace

import pytest

from experiments import page_visitors
from interestyle_jax.errors import InputError


@pytest.fixture
def client(monkeypatch):
    """Clients of which every third is refused; they count how many wait at once."""
    lock, waiting, most = threading.Lock(), [0], [0]
    together = threading.Barrier(6)

    class Client:
        made = 0

        def __init__(self, url, **options):
            self.number = Client.made
            Client.made += 1

        def predict(self, file, *, api_name):
            assert (api_name, file) == ("/invert", "upload.png")
            with lock:
                waiting[0] += 1
                most[0] = max(most[0], waiting[0])
            together.wait(60)
            if self.number % 3 == 2:
                raise ValueError("the queue is full")

    stand_in = SimpleNamespace(Client=Client, handle_file=lambda path: path.name)
    monkeypatch.setitem(sys.modules, "gradio_client", stand_in)
    return most


def test_visitors_come_together_and_are_counted(client, tmp_path):
    upload = page_visitors.write_upload(tmp_path / "upload.png", 96)
    found = page_visitors.visit("http://127.0.0.1:1", os.getpid(), upload, 6)
    assert client == [6]
    assert (found["visitors"], found["answered"]) == (6, 4)
    assert found["refused"] == {"the queue is full": 2}
    assert 0 <= found["seconds"]["first"] <= found["seconds"]["median"] <= found["seconds"]["last"]
    memory = found["memory_mb"]
    assert 0 < memory["before"] <= memory["largest"] >= memory["after"] > 0


def test_the_table(capsys):
    row = page_visitors.summary([3.0, 1.0, 1.5], ["full"], [600.4, 700, 650])
    lines = page_visitors.markdown([{"size": 64, **row}]).splitlines()
    assert lines[-1] == "| 64 | 4 | 3 | 1.0, 1.5, 3.0 s | 600, 700, 650 MB |"
    none = page_visitors.summary([], ["full"], [600])
    assert (none["answered"], none["seconds"]) == (0, {})
    assert "nan" in page_visitors.markdown([{"size": 64, **none}])


def test_bad_arguments_and_a_page_that_is_gone(tmp_path, capsys):
    for arguments in ([], ["--url=x"], ["--url=x", "--pid=1", f"--out={tmp_path}"]):
        assert page_visitors.main(arguments) == 2
        assert "--out: expected it, or --url and --pid" in capsys.readouterr().err
    assert page_visitors.main(["--size=64,none"]) == 2
    assert "'none', expected a whole number from 1" in capsys.readouterr().err
    with pytest.raises(InputError, match="--pid: no process 4194304 in /proc"):
        page_visitors.resident_mb(4194304)
