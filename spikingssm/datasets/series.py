"""Series that are drawn here, for forecasts: the Mackey-Glass equation and a noisy sum of sines."""

from typing import Any

import numpy as np

from spikingssm.datasets.base import Rows, SequenceData
from spikingssm.datasets.inputs import Numbers
from spikingssm.datasets.targets import ahead, scaled

__all__ = ["mackey_glass", "series", "sines"]

PARTS_AN_UNIT, WASHED_OUT = 10, 500
"""Steps of the integration in a unit of time, and units until a start is forgotten."""
LONGEST, MOST = 100_000, 100_000
"""Steps of a row, and rows."""


def series(
    kind: str = "mackey_glass",
    *,
    length: int = 256,
    rows: int = 320,
    test_rows: int = 80,
    noise: float = 0.0,
    horizon: int | None = None,
    draw_seed: int = 0,
    seed: int = 0,
    **options: Any,
) -> SequenceData:
    """Drawn series x (B, length, 1), standardised, and as targets the same ``horizon`` steps later.

    Training and test rows start at other places. The draw is the same for every ``seed``.

    Args:
        kind: "mackey_glass" or "sines", see the functions of these names.
        length: steps of a row.
        rows: for training and validation.
        test_rows: for the test.
        noise: standard deviation of the noise on every step, in that of the series. A target has it too, so that no
            forecast has a smaller error.
        horizon: steps ahead, from 1 to length - 1; None is 1, and a run asks for that of its task.
        draw_seed: of the series.
        seed: of the validation split and of the order.
        options: batch_size, val_fraction, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        ValueError: an unknown kind, or a number out of range.
    """
    if kind not in KINDS:
        raise ValueError(f"series: kind must be one of {', '.join(KINDS)}, got {kind!r}.")
    sizes = (("length", length, 2, LONGEST), ("rows", rows, 2, MOST), ("test_rows", test_rows, 1, MOST))
    for name, value, least, most in sizes:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"series: {name} must be an integer from {least} to {most}, got {value!r}.")
    if not 0 <= noise < np.inf:
        raise ValueError(f"series: noise must be a number >= 0, got {noise}.")
    horizon = 1 if horizon is None else horizon
    draw = np.random.default_rng(draw_seed)
    x = KINDS[kind](rows + test_rows, length, draw)
    x = x + noise * x.std() * draw.normal(size=x.shape)
    x = x[:, :, None].astype(np.float32)
    train, test = x[:rows], x[rows:]
    mean, std = float(train.mean(dtype=np.float64)), float(train.std(dtype=np.float64))
    try:
        y = [ahead(part, horizon) for part in (train, test)]
    except ValueError as error:
        raise ValueError(f"series: {error}") from None
    return SequenceData(
        kind,
        Rows(train, y[0]),
        Rows(test, y[1]),
        d_output=1,
        inputs=Numbers(mean=(mean,), std=(std,)),
        targets=scaled(y[0], horizon=horizon),
        seed=seed,
        split="test: other rows of the same draw; validation: from the training rows, by the seed",
        generated=True,
        notes={"noise": noise, "draw_seed": draw_seed},
        **options,
    )


def mackey_glass(rows: int, length: int, draw: np.random.Generator) -> np.ndarray:
    """Rows (rows, length) of the Mackey-Glass equation with a delay of 17, a value each unit of time.

    ``dx/dt = 0.2 x(t - 17) / (1 + x(t - 17)^10) - 0.1 x(t)``, which is chaotic. Each row has its own constant history,
    and its first 500 units are left out. The integration is by the Runge-Kutta rule of fourth order in steps of 0.1,
    with the delayed value between two steps taken as their mean.

    Args:
        rows: number of rows.
        length: units of time.
        draw: of the histories.

    Source: Mackey, Glass, "Oscillation and chaos in physiological control systems", Science 197, 1977. The delay is
        that of the usual benchmark.
    """
    step, delay = 1 / PARTS_AN_UNIT, 17 * PARTS_AN_UNIT

    def slope(x: np.ndarray, before: np.ndarray) -> np.ndarray:
        change: np.ndarray = 0.2 * before / (1 + before**10) - 0.1 * x
        return change

    count = (WASHED_OUT + length) * PARTS_AN_UNIT
    x = np.empty((delay + count + 1, rows))
    x[: delay + 1] = draw.uniform(0.5, 1.3, rows)
    for t in range(delay, delay + count):
        old, new = x[t - delay], x[t - delay + 1]
        half = (old + new) / 2
        a = slope(x[t], old)
        b = slope(x[t] + step / 2 * a, half)
        c = slope(x[t] + step / 2 * b, half)
        d = slope(x[t] + step * c, new)
        x[t + 1] = x[t] + step / 6 * (a + 2 * b + 2 * c + d)
    every = x[delay + 1 + WASHED_OUT * PARTS_AN_UNIT :: PARTS_AN_UNIT]  # (length, rows)
    return np.ascontiguousarray(every.T)


def sines(rows: int, length: int, draw: np.random.Generator) -> np.ndarray:
    """Rows (rows, length) of three sines with periods of 7, 16 and 37 steps; the phases are drawn for each row.

    Args:
        rows: number of rows.
        length: steps.
        draw: of the phases.
    """
    t, periods = np.arange(length), np.array([7.0, 16.0, 37.0])
    phases = draw.uniform(0, 2 * np.pi, (rows, 3, 1))
    found: np.ndarray = np.sin(2 * np.pi * t / periods[:, None] + phases).sum(1)
    return found


KINDS = {"mackey_glass": mackey_glass, "sines": sines}
