"""Folders of buckets and of the Hub; a bucket in memory, a Hub on this machine."""

import hashlib
import http.server
import json
import threading
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import fsspec
import pytest

import interestyle_jax as ij
from interestyle_jax import buckets
from interestyle_jax.buckets import Bucket, bucket_error, bucket_url, local_copy
from interestyle_jax.data.locate import locate_data_set
from interestyle_jax.errors import MachineError
from interestyle_jax.training import run_files
from interestyle_jax.training.run_files import RunFiles
from interestyle_jax.weights import load_weights, resolve_weights


@pytest.fixture
def files(monkeypatch, tmp_path):
    """An empty file system in memory."""
    monkeypatch.setenv("INTERESTYLE_CACHE", str(tmp_path / "cache"))
    # Orbax has no checkpoints in memory.
    monkeypatch.setattr(run_files, "epath", SimpleNamespace(Path=PurePosixPath))
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    files.mkdir("/bucket")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def test_addresses():
    assert bucket_url("gs://bucket/a/") == "gs://bucket/a"
    # What a Path makes of it.
    assert bucket_url(Path("s3://bucket/a")) == "s3://bucket/a"
    assert bucket_url("hf://owner/name@v1") == "hf://owner/name@v1"
    for text in ("runs/gs", "/gs:/a", "gs:", "C:/a", "ffhq:1.0.0"):
        assert bucket_url(text) is None


def test_weights_and_data_of_a_bucket_are_copied_once(files, tiny_weights, tmp_path, monkeypatch):
    files.put(str(tiny_weights / "generator"), "/bucket/weights/", recursive=True)
    folder = resolve_weights("memory://bucket/weights/generator")
    assert folder.name == "generator" and tmp_path / "cache" in folder.parents
    assert set(ij.load("memory://bucket/weights/generator").variables) == {"generator", "w_avg"}
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "download", lambda *arguments: pytest.fail("was copied again"))
        assert locate_data_set("memory://bucket/weights/generator") == folder
    # Another content is another folder.
    files.pipe("/bucket/weights/generator/metadata.json", b"{}")
    assert resolve_weights("memory://bucket/weights/generator") != folder
    assert [path for path in folder.parent.iterdir() if path != folder] == []
    with pytest.raises(ij.InputError, match="^memory://bucket/none: no such folder, or an empty"):
        resolve_weights("memory://bucket/none")


def test_names_of_a_bucket_stay_in_the_folder(files, tmp_path):
    with pytest.raises(ij.InputError, match="holds an object of the name '../a'"):
        Bucket("memory://bucket").download(["../a"], tmp_path)


def test_errors_are_the_users_or_the_networks(monkeypatch):
    def failing(error):
        def fail(*arguments):
            raise error

        return fail

    for words in ("Forbidden: https://a", "PERMISSION_DENIED: a", "Access Denied", "HTTP 401"):
        found = bucket_error(OSError(words), "gs://a")
        assert isinstance(found, ij.InputError) and "gs://a: no rights to it: " in str(found)
    found = bucket_error(ValueError('NOT_FOUND: Error opening "zarr"'), "gs://a")
    assert isinstance(found, ij.InputError)
    for error in (ConnectionRefusedError(111, "no"), ValueError("UNAVAILABLE: a"), OSError()):
        found = bucket_error(error, "gs://a")
        assert isinstance(found, MachineError) and str(found).startswith("gs://a: ")
    bucket = Bucket("memory://bucket")
    with pytest.raises(MachineError, match="^memory://bucket: Connection refused"):
        bucket._try(failing(ConnectionRefusedError(111, "no")))
    monkeypatch.setattr(fsspec.core, "url_to_fs", failing(ImportError("Install gcsfs")))
    with pytest.raises(ij.InputError, match=r"pip install 'interestyle_jax\[gcs\]' \(Install"):
        Bucket("gs://bucket")


def test_files_of_a_run_appear_whole(files, tiny_weights, tmp_path, monkeypatch):
    place = "memory://bucket/run"
    run = RunFiles(place)
    (run.path / "metrics.jsonl").write_text("1\n")
    (run.path / "weights").mkdir()
    for number in ("1", "2"):
        for name in ("metadata.json", f"part_{number}", "part"):
            (run.path / "weights" / name).write_text(number)
        order = []
        upload = Bucket.upload

        def told(self, file, name):
            order.append(name)  # noqa: B023
            # Not while they change.
            assert not self.exists("weights/metadata.json")
            upload(self, file, name)  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setattr(Bucket, "upload", told)
            (run.path / "metrics.jsonl").unlink()
            run.publish()
        assert order[-1] == "weights/metadata.json"
        assert run.has_weights()
        (run.path / "metrics.jsonl").write_text("1\n2\n")
        run.publish()
    # The network fails between two objects: what is there is no weight directory.
    (run.path / "weights" / "part").write_text("three")

    def cut(self, file, name):
        raise MachineError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "upload", cut)
        with pytest.raises(MachineError, match="gone"):
            run.publish()
    assert "/bucket/run/weights/metadata.json" not in files.find("/bucket/run")
    run.publish()
    (run.path / "weights" / "part_1").unlink()
    (run.path / "weights" / "part").write_text("4")
    run.publish()
    run.close()
    assert not run.path.exists()
    assert files.find("/bucket/run") == [
        "/bucket/run/metrics.jsonl",
        "/bucket/run/weights/metadata.json",
        "/bucket/run/weights/part",
        "/bucket/run/weights/part_2",
    ]
    again = RunFiles(place)
    assert (again.path / "metrics.jsonl").read_text() == "1\n2\n" and again.has_weights()
    assert not (again.path / "weights").exists()
    again.close()


def test_where_runs_cannot_lie(files):
    with pytest.raises(ij.InputError, match="--workdir: s3://bucket/run, expected a folder or gs:"):
        RunFiles("s3://bucket/run")
    with pytest.raises(ij.InputError, match="memory://none/run: no such bucket"):
        RunFiles("memory://none/run")


@pytest.fixture
def hub(tiny_weights, monkeypatch, tmp_path):
    """A Hub with one repository, owner/tiny at revisions main and v1."""
    constants = pytest.importorskip("huggingface_hub.constants")
    root = tiny_weights / "generator"
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    commit = "a" * 40
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self, body=True):
            path = self.path.partition("?")[0]
            asked.append(path)
            if path.startswith("/api/models/owner/tiny/revision/") and path[-2:] in ("in", "v1"):
                facts = {"sha": commit, "id": "owner/tiny"}
                facts["siblings"] = [{"rfilename": name} for name in names]
                return self.send(json.dumps(facts).encode(), "json", body)
            if path == f"/api/models/owner/tiny/tree/{commit}":
                sizes = {name: (root / name).stat().st_size for name in names}
                tree = [{"type": "file", "path": n, "size": s, "oid": n} for n, s in sizes.items()]
                return self.send(json.dumps(tree).encode(), "tree", body)
            start = f"/owner/tiny/resolve/{commit}/"
            if path.startswith(start) and path.removeprefix(start) in names:
                content = (root / path.removeprefix(start)).read_bytes()
                return self.send(content, hashlib.sha1(content).hexdigest(), body)
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_HEAD(self):
            self.do_GET(body=False)

        def send(self, content, tag, body):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{tag}"')
            self.send_header("X-Repo-Commit", commit)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *words):
            del words

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    yield asked
    server.shutdown()
    server.server_close()


def test_weights_of_the_hub(hub, tmp_path):
    model = ij.load("hf://owner/tiny@v1")
    assert model.resolution == 32 and tmp_path / "hub" in model.directory.parents
    assert "/api/models/owner/tiny/revision/v1" in hub
    assert load_weights(resolve_weights("hf://owner/tiny")).metadata["family"] == "interestyle"
    with pytest.raises(ij.InputError, match="^hf://owner/none: not found"):
        ij.load("hf://owner/none")
    with pytest.raises(ij.InputError, match="expected hf://OWNER/NAME or"):
        local_copy("hf://owner")


def test_every_scheme_has_an_extra():
    text = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text()
    for extra in (*buckets.EXTRAS.values(), "hub"):
        assert f"\n{extra} = [" in text
