"""A picture for the page of each neuron: `python docs/neurons/pictures.py` draws docs/neurons/NAME.png anew.

On the left is what the neuron does under a current that shows what sets it apart, on the right the path of its state.
"""

import argparse
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import sdn

FOLDER = Path(__file__).parent
DPI = 100
COLOURS = 192


class Shown(NamedTuple):
    """A neuron, its current (L,), the words above parts of it by the step they are centred at, and the title."""

    dynamics: sdn.Dynamics
    current: Tensor
    words: dict[int, str]
    title: str


def stairs(levels: dict[str, float], length: int = 150, noise: float = 0.0) -> tuple[Tensor, dict[int, str]]:
    """Constant currents one after another, with Gaussian noise of that standard deviation, and their words."""
    current = torch.tensor([*levels.values()]).repeat_interleave(length)  # (L,)
    noisy = current + noise * torch.randn(len(current), generator=torch.Generator().manual_seed(0))
    return noisy, {length * i + length // 2: word for i, word in enumerate(levels)}


def bursts(omega: float, amplitude: float, periods: int = 3, dt: float = 0.01) -> tuple[Tensor, dict[int, str]]:
    """Three sines of one amplitude, at a third of omega, at omega and at three times it, with pauses between them.

    Each lasts so many periods of omega, a multiple of 3, so that all of them begin and end at 0.
    """
    length, words, parts = round(periods * 2 * math.pi / (omega * dt)), {}, []
    for i, (word, factor) in enumerate({"too slow": 1 / 3, "its own frequency": 1.0, "too fast": 3.0}.items()):
        turn = factor * periods * 2 * math.pi / length
        parts += [amplitude * torch.sin(turn * torch.arange(length)), torch.zeros(length * 2 // 3)]
        words[(length + length * 2 // 3) * i + length // 2] = word
    return torch.cat(parts), words


PICTURES = {
    "LIF": Shown(
        sdn.LIF(0.95), *stairs({"too weak": 0.045, "stronger": 0.07, "strong": 0.15}, noise=0.003),
        "LIF(decay=0.95): leaks, is set to 0 by a spike",
    ),
    "ALIF": Shown(
        sdn.ALIF(), *stairs({"weak": 0.02, "strong": 0.06, "weak again": 0.02}, 200, noise=0.001),
        "ALIF(): every spike raises its threshold",
    ),
    "RF": Shown(sdn.RF(), *bursts(10.0, 4.0), "RF(omega=10, damping=1): resonates, and no spike stops it"),
    "BRF": Shown(sdn.BRF(), *bursts(10.0, 9.0), "BRF(omega=10, b_offset=1): spikes damp it, raise its threshold"),
    "HRF": Shown(sdn.HRF(20.0, 1.0), *bursts(20.0, 25.0, 6), "HRF(omega=20, b_offset=1): fires on its velocity u"),
    "IzhikevichRF": Shown(
        sdn.IzhikevichRF(), *bursts(10.0, 5.0), "IzhikevichRF(omega=10, damping=1): fires on v, is then set to (0, 1)"
    ),
}  # fmt: skip
"""The pictures, by the names of their files."""


def draw(shown: Shown) -> Figure:
    """The picture of one neuron: its traces beside its phase plane."""
    found = sdn.simulate(shown.dynamics, shown.current.double().reshape(1, -1, 1))
    figure = Figure(figsize=(9, 3.7), dpi=DPI, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[2, 1])
    axes = left.subplots(3, 1, sharex=True, height_ratios=[1, 2.2, 0.4])
    sdn.plot.traces(found, shown.dynamics, axes=axes)
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low, high + 0.45 * (high - low))
    for step, word in shown.words.items():
        axes[0].text(step, high + 0.4 * (high - low), word, ha="center", va="top", fontsize="small")
    sdn.plot.phase_plane(found, dynamics=shown.dynamics, ax=right.subplots())
    figure.suptitle(shown.title, fontsize="medium")
    return figure


def write(name: str, folder: Path) -> Path:
    """Draw one picture into a folder, in few colours so that it is small."""
    canvas: Any = FigureCanvasAgg(draw(PICTURES[name]))
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    partial = folder / f".{name}.png"
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(partial, optimize=True)
    return partial.replace(folder / f"{name}.png")


def main() -> None:
    """Draw all of them, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(PICTURES)}; default all")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER", help="write there (default: beside this)")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(PICTURES)):
        parser.error(f"no picture is named {unknown[0]!r}; there are {', '.join(PICTURES)}")
    for name in given.names or PICTURES:
        path = write(name, given.out)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
