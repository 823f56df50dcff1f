"""LiteRT networks (.tflite) on NumPy arrays, for the small MediaPipe networks that ship here."""

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from interestyle_jax.errors import InputError, file_error

ASSETS = Path(__file__).resolve().parent / "assets" / "mediapipe"


# Standard error is the process': interpreters are made one at a time.
_MAKING = threading.Lock()


class LiteRTModel:
    """A .tflite network with one float32 input, for any number of threads.

    Attributes:
      path: the file.
      input_shape: [1, H, W, C].
      output_shapes: a shape an output, in the file's order.
    """

    def __init__(self, name_or_path: str | Path, *, num_threads: int = 1):
        """Loads a network.

        Args:
          name_or_path: a name of `assets/mediapipe` ("selfie_segmentation"), or a .tflite file.
          num_threads: CPU threads of a call.

        Raises:
          InputError: LiteRT is not installed, no such network, or a file that is none.
        """
        self.path = _find(name_or_path)
        self._content, self._num_threads = self.path.read_bytes(), num_threads
        self._own = threading.local()
        interpreter = self._interpreter()
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        if len(inputs) != 1 or inputs[0]["dtype"] != np.float32:
            raise InputError(f"{self.path}: expected one float32 input, found {len(inputs)}")
        self._input, self._outputs = inputs[0]["index"], [output["index"] for output in outputs]
        self.input_shape = tuple(int(n) for n in inputs[0]["shape"])
        self.output_shapes = [tuple(int(n) for n in output["shape"]) for output in outputs]

    def __call__(self, x: Float[np.ndarray, "*shape"]) -> list[Float[np.ndarray, "..."]]:
        """Runs the network on an array of `input_shape`; returns its outputs as float32 copies.

        Raises:
          ValueError: another shape.
        """
        if x.shape != self.input_shape:
            raise ValueError(
                f"{self.path.name}: input {list(x.shape)}, expected {list(self.input_shape)}"
            )
        interpreter = self._interpreter()
        interpreter.set_tensor(self._input, np.ascontiguousarray(x, np.float32))
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in self._outputs]

    def _interpreter(self):
        """This thread's: one serves one thread."""
        if hasattr(self._own, "interpreter"):
            return self._own.interpreter
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise InputError(
                f"{self.path.name}: needs the package ai-edge-litert: "
                f"pip install 'interestyle_jax[photos]' ({error})"
            ) from error
        try:
            with _MAKING, _without_info_lines():
                made = Interpreter(model_content=self._content, num_threads=self._num_threads)
                made.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise file_error(error, f"{self.path}: not a network that LiteRT can run") from error
        self._own.interpreter = made
        return made


def _find(name_or_path: str | Path) -> Path:
    shipped = sorted(path.stem for path in ASSETS.glob("*.tflite"))
    if str(name_or_path) in shipped:
        return ASSETS / f"{name_or_path}.tflite"
    path = Path(name_or_path)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file, expected a .tflite file or one of {', '.join(shipped)}"
        )
    return path


@contextlib.contextmanager
def _without_info_lines() -> Iterator[None]:
    """Drops the lines "INFO: ..." that LiteRT's C++ writes on stderr; other lines pass, later.

    LiteRT has no switch for them, so the file descriptor itself is turned aside.
    """
    try:
        sys.stderr.flush()
        stderr = os.dup(2)
    except (AttributeError, OSError, ValueError):
        # No usable stderr: nothing to keep clean.
        yield
        return
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            caught.seek(0)
            for line in caught:
                if not line.startswith(b"INFO: "):
                    os.write(2, line)
