"""A StyleGAN2 mapping network from normal z to factors, computed instead of learnt.

Each factor is a function of one number of z (`factor_prior`): a step where a kind is chosen, else a
smooth curve. Leaky ReLUs are hinges, and both are sums of hinges: a curve of a dozen, a step of two
whose slopes cancel outside of a narrow ramp. Two more layers make the ramps narrower, tenfold each,
so no weight is large and half types hold it.
"""

import math

import numpy as np
from scipy.special import ndtri

from interestyle_jax.data.avatars.factors import Factors
from interestyle_jax.errors import InputError
from interestyle_jax.training.factor_prior import Choice, draws

LAYERS = 3
# Of a ramp in z, and by how much each further layer narrows it.
RAMP, NARROWER = 0.3, 10.0
SLOPE, GAIN = 0.2, math.sqrt(2.0)
# Of the pieces that a smooth curve is made of; and what makes any factor positive.
PIECES, OFFSET = 11, 4.0


def factor_layers(
    factors: Factors, *, z_dim: int, width: int
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray, np.ndarray]:
    """The layers from z to the factors.

    Args:
      factors: of the style.
      z_dim: numbers of z.
      width: units of a layer.

    Returns:
      `LAYERS` times (kernel [I, width], bias [width]), each followed by the scaled leaky ReLU h;
      then `read` [width, F] and `constant` [F]: h @ read + constant are the factors.

    Raises:
      InputError: z or the layers are too narrow.
    """
    decided = draws(factors)
    if z_dim < len(decided):
        raise InputError(f"config.generator.z_dim: {z_dim}, expected from {len(decided)}")
    layers = [_Layer(np.eye(z_dim), np.zeros(z_dim)), *(_Layer() for _ in range(LAYERS))]
    # From z: a signal for each threshold, and one for each factor of a curve.
    steps = 0
    for i, draw in enumerate(decided):
        if isinstance(draw, Choice):
            for threshold in draw.thresholds:
                layers[0].ramp_to(layers[1], i, threshold, RAMP)
            steps += len(draw.thresholds)
    for i, draw in enumerate(decided):
        if not isinstance(draw, Choice):
            layers[0].curves_to(layers[1], i, draw)
    curves = layers[1].count - steps
    for before, after in zip(layers[1:], layers[2:], strict=False):
        for i in range(steps):
            before.ramp_to(after, i, 0.5, 1 / NARROWER)
        for i in range(steps, steps + curves):
            before.carry_to(after, i)
    found = [a.dense(b, width) for a, b in zip(layers, layers[1:], strict=False)]
    read, constant = layers[-1].signals(width)
    combined, shift = _kinds_of_steps(decided, steps)
    return found, read @ combined, constant @ combined + shift


class _Layer:
    """Signals that are sums of this layer's units, and units that are made of a layer's signals."""

    def __init__(self, read: np.ndarray | None = None, constant: np.ndarray | None = None):
        self._given = None if read is None else (read, constant)
        # Units: (signal of the layer before, slope, bias). Signals: ({unit: share}, constant).
        self._units: list[tuple[int, float, float]] = []
        self._signals: list[tuple[dict[int, float], float]] = []

    @property
    def count(self) -> int:
        """How many signals it has."""
        return len(self._signals)

    def signals(self, width: int) -> tuple[np.ndarray, np.ndarray]:
        """[width, signals] and [signals]: what makes the signals of the units."""
        if self._given is not None:
            return self._given
        read = np.zeros((width, len(self._signals)))
        for i, (shares, _) in enumerate(self._signals):
            for unit, share in shares.items():
                read[unit, i] = share
        return read, np.array([constant for _, constant in self._signals])

    def dense(self, after: "_Layer", width: int) -> tuple[np.ndarray, np.ndarray]:
        """The kernel and bias that make `after`'s units of this layer's."""
        if len(after._units) > width:
            raise InputError(f"config.generator.w_dim: {width}, expected from {len(after._units)}")
        read, constant = self.signals(width)
        kernel, bias = np.zeros((len(read), width)), np.zeros(width)
        for unit, (signal, slope, shift) in enumerate(after._units):
            kernel[:, unit] = slope * read[:, signal]
            bias[unit] = slope * constant[signal] + shift
        return kernel, bias

    def ramp_to(self, after: "_Layer", signal: int, middle: float, length: float) -> None:
        """A signal of `after` that rises from 0 to 1 where `signal` passes `middle`."""
        low, high = middle - length / 2, middle + length / 2
        unit = len(after._units)
        # As steep as is needed, half by each side of the units.
        steep = math.sqrt(1 / length)
        after._units += [(signal, steep, -steep * low), (signal, steep, -steep * high)]
        # h_low - h_high is SLOPE times its greatest before the ramp, and that after it.
        share = 1 / (GAIN * steep * length * (1 - SLOPE))
        after._signals.append(({unit: share, unit + 1: -share}, -SLOPE / (1 - SLOPE)))

    def carry_to(self, after: "_Layer", signal: int) -> None:
        """The same signal in `after`."""
        after._signals.append(({len(after._units): 1 / GAIN}, -OFFSET))
        after._units.append((signal, 1.0, OFFSET))

    def curves_to(self, after: "_Layer", signal: int, draw) -> None:
        """Signals of `after`: least squares of hinges, for a normal `signal`."""
        grid = ndtri((np.arange(20_000) + 0.5) / 20_000)
        # The first is below all, so a straight line.
        knots = np.concatenate([[-8.0], np.linspace(-2.4, 2.4, PIECES - 1)])
        x = grid[:, None] - knots
        basis = GAIN * np.where(x > 0, x, SLOPE * x)
        basis = np.concatenate([basis, np.ones((len(grid), 1))], axis=1)
        shares = np.linalg.lstsq(basis, draw(grid), rcond=None)[0]
        start = len(after._units)
        after._units += [(signal, 1.0, -knot) for knot in knots]
        for column in shares.T:
            after._signals.append(
                ({start + i: float(x) for i, x in enumerate(column[:-1])}, float(column[-1]))
            )


def _kinds_of_steps(decided: list, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """[signals, F] and [F]: one-hot kinds of the steps between them; the curves as they are."""
    columns: list[dict[int, float]] = []
    shift: list[float] = []
    step, curve = 0, steps
    for draw in decided:
        if isinstance(draw, Choice):
            count = len(draw.chances)
            for kind in range(count):
                column = {} if kind == 0 else {step + kind - 1: 1.0}
                if kind < count - 1:
                    column[step + kind] = -1.0
                columns.append(column)
                shift.append(float(kind == 0))
            step += count - 1
        else:
            for _ in range(draw(np.zeros(1)).shape[1]):
                columns.append({curve: 1.0})
                shift.append(0.0)
                curve += 1
    combined = np.zeros((curve, len(columns)))
    for i, column in enumerate(columns):
        for signal, share in column.items():
            combined[signal, i] = share
    return combined, np.array(shift)
