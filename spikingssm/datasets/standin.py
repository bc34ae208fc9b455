"""Stand-ins for data sets that are not there: sequences of the same shapes, drawn so that a network can learn them."""

from pathlib import Path

import numpy as np

from spikingssm.datasets.base import IGNORED, Rows

__all__ = ["TEST", "TRAIN", "bars", "images", "refuse_root", "segments"]

TRAIN, TEST = 256, 64
"""Rows of a stand-in."""


def refuse_root(name: str, root: str | Path | None) -> None:
    """Do nothing if ``root`` is None.

    Raises:
        ValueError: a folder and a stand-in are both asked for.
    """
    if root is not None:
        raise ValueError(f"{name}: data.root and data.generated=true are both set; drop one.")


def images(length: int, channels: int, classes: int, rows: tuple[int, int] = (TRAIN, TEST)) -> tuple[Rows, Rows]:
    """Training and test rows x (N, length, channels) uint8, y (N,): a level and a wave for each class, plus noise.

    Args:
        length: steps.
        channels: of x; the wave is shifted from one to the next.
        classes: number of classes, equally often.
        rows: number of training and of test rows.
    """
    time = np.linspace(0, 2 * np.pi, length, endpoint=False)
    number = np.arange(classes)
    wave = np.sin((1 + number)[:, None, None] * time[:, None] + np.arange(channels))
    prototypes = np.linspace(80, 176, classes)[:, None, None] + 50 * wave

    def draw(count: int, seed: int) -> Rows:
        random = np.random.default_rng(seed)
        y = random.permutation(np.arange(count) % classes)
        x = prototypes[y] + 10 * random.standard_normal((count, length, channels))
        return Rows(x.clip(0, 255).astype(np.uint8), y)

    return draw(rows[0], 0), draw(rows[1], 1)


def segments(length: int, channels: int, classes: int, rows: tuple[int, int] = (TRAIN, TEST)) -> tuple[Rows, Rows]:
    """Rows x (N, length, channels) int16 of 0 and 1, y (N, length): classes in a cycle, each with rates of its own.

    A segment lasts 20 to 99 steps; the last twentieth of the steps has no label.

    Args:
        length: steps.
        channels: of x; class k fires in channel c with a rate between 0 and 1/2 that is drawn once.
        classes: number of classes.
        rows: number of training and of test rows.
    """
    rates = np.random.default_rng(0).uniform(0, 0.5, (classes, channels))

    def draw(count: int, seed: int) -> Rows:
        random = np.random.default_rng(seed)
        starts = random.integers(20, 100, (count, length // 20)).cumsum(1)
        passed = (np.arange(length) >= starts[:, :, None]).sum(1)
        y = (passed + random.integers(classes, size=(count, 1))) % classes
        x = random.random((count, length, channels)) < rates[y]
        y[:, length - length // 20 :] = IGNORED
        return Rows(x.astype(np.int16), y)

    return draw(rows[0], 1), draw(rows[1], 2)


def bars(steps: int, size: int, classes: int, rows: tuple[int, int] = (TRAIN // 2, TEST // 2)) -> tuple[Rows, Rows]:
    """Rows x (N, steps * size, size) uint8, y (N,): a spot that falls in a column and at a speed of its class.

    Args:
        steps: frames; their rows follow one another.
        size: rows, and columns, of a frame.
        classes: number of classes, equally often.
        rows: number of training and of test rows.
    """
    places = np.arange(size)
    columns = np.exp(-(((places - np.linspace(size / 8, size * 7 / 8, classes)[:, None]) / 4) ** 2))

    def draw(count: int, seed: int) -> Rows:
        random = np.random.default_rng(seed)
        y = random.permutation(np.arange(count) % classes)
        x = np.empty((count, steps, size, size), np.uint8)
        for number, label in enumerate(y):
            passed = random.uniform(0, size) + (0.5 + label / 4) * np.arange(steps)[:, None]
            fall = 60 * np.exp(-(((passed - places) % size / 4 - 2) ** 2))
            x[number] = fall[:, :, None] * columns[label] + random.random((steps, size, size), np.float32)
        return Rows(x.reshape(count, steps * size, size), y)

    return draw(rows[0], 1), draw(rows[1], 2)
