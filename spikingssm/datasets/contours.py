"""Dashed contours with two dots, drawn from a seed: are the dots the two ends of one contour?

Points are complex numbers x + iy in pixels, directions are complex numbers of length one.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["BLOCK", "SETTINGS", "Scenes", "Setting", "draw", "render"]

BLOCK = 128
"""Images are drawn in blocks of this many: image i of a stream is in block i // BLOCK, whatever else is drawn."""
CANDIDATES, TURNS = 16, 8
"""Contours that are grown side by side for each one that is kept, and turns that each of them considers."""
AWAY = 1e6
TABLE = np.linspace(-np.pi / 2, np.pi / 2, 513)
SHARE = (TABLE + np.sin(2 * TABLE) / 2) / np.pi + 1 / 2  # the integral of cos^2 from -pi/2: inverted by interpolation


@dataclass(frozen=True)
class Setting:
    """The geometry of the images; lengths are in pixels.

    Args:
        resolution: width and height of the image.
        dash: length of a dash.
        gaps: from the end of a dash over the corner to the next one; an image has one of these throughout.
        space: ends of dashes that do not follow one another are the gap and this much more apart, or farther.
        thickness: of a dash.
        contrast: brightness of a dash of at least one pixel of thickness; dots have 1.
        dot: radius of a dot.
        seeds: between the first ends of the two long contours; the first is twice that from every border.
        continuity: from one dash to the next a contour turns by t / continuity, t in (-pi/2, pi/2) from cos^2 t.
        contour_length: dashes of the two long contours, at least 2.
        distractors: at most that many short contours; fewer where no more fit.
        distractor_length: dashes of these, or half of it where no more fit.
        lone: leave the second contour away where the dots are on the first.

    Source: Linsley, Kim, Veerabadran, Serre, "Learning long-range spatial dependencies with horizontal gated-recurrent
    units", arXiv 1805.08315; the numbers of the Long Range Arena, google-research/long-range-arena.
    """

    resolution: int
    dash: float
    gaps: tuple[float, ...]
    space: float
    thickness: float
    contrast: float
    dot: float
    seeds: float
    continuity: float
    distractors: int
    contour_length: int = 14
    distractor_length: int = 4
    lone: bool = False


# Dashes are half a pixel longer and gaps shorter than "paddle_length" and twice "paddle_margin": at the published
# supersampling of 2 both ends of a line are drawn. At 32 pixels 4 a step would leave hardly any room for distractors.
SETTINGS = {
    32: Setting(32, 2.0, (1.5,), 2.0, 0.5, 1.5, 1.5, 7.0, 1.0, 5),
    128: Setting(128, 5.5, (3.5, 5.5), 3.0, 1.5, 0.9, 3.0, 20.0, 1.8, 8),
}


class Scenes(NamedTuple):
    """What N images show: ``ends`` (N, D, 2, 2) is x, y of the first and the last point of D dashes.

    ``contour`` (D,) is the number of the contour that a dash belongs to, 0 and 1 are the long ones, in their order;
    ``placed`` (N, D) is False for dashes that are not there. ``dots`` (N, 2, 2) is x, y; ``labels`` (N,) is 1 where
    both dots are on one contour; ``gaps`` (N,) are the gaps within contours.
    """

    ends: np.ndarray
    contour: np.ndarray
    placed: np.ndarray
    dots: np.ndarray
    labels: np.ndarray
    gaps: np.ndarray


def draw(setting: Setting, seed: int, stream: int, block: int) -> Scenes:
    """The scenes of the images block * BLOCK to (block + 1) * BLOCK - 1 of a stream; odd ones have the label 1.

    Args:
        setting: the geometry.
        seed: >= 0.
        stream: >= 0; another one for each part of a data set.
        block: >= 0.

    Raises:
        ValueError: contours that do not fit into the image.
    """
    rng = np.random.default_rng([seed, stream, block])
    long, gaps = _long_contours(setting, rng)
    ends = long.reshape(BLOCK, -1)
    for _ in range(setting.distractors):
        ends = np.concatenate([ends, _distractor(setting, rng, ends, gaps)], 1)
    length, short = setting.contour_length, setting.distractor_length
    contour = np.repeat(np.arange(2 + setting.distractors), [length, length] + [short] * setting.distractors)
    labels = np.arange(BLOCK) % 2
    dots = np.stack([long[:, 0, 0], np.where(labels == 1, long[:, 0, -1], long[:, 1, -1])], 1)
    placed = ends[:, ::2].real < AWAY
    if setting.lone:
        placed &= (labels == 0)[:, None] | (contour == 0)
    return Scenes(_pairs(ends).reshape(BLOCK, -1, 2, 2), contour, placed, _pairs(dots), labels, gaps)


def render(setting: Setting, scenes: Scenes) -> np.ndarray:
    """Grey images (N, resolution^2) uint8 of scenes, row by row, with smooth edges.

    A pixel's brightness falls from full to none while its centre moves over the edge by one pixel.
    """
    size, count = setting.resolution, len(scenes.ends)
    canvas = np.zeros((count, size, size), np.float32)
    image, dash = np.nonzero(scenes.placed)
    ends = scenes.ends[image, dash] @ np.array([1, 1j], np.complex64)
    _stamp(canvas, image, ends[:, 0], ends[:, 1], setting.thickness, setting.contrast)
    dots = (scenes.dots @ np.array([1, 1j], np.complex64)).reshape(-1)
    _stamp(canvas, np.repeat(np.arange(count), 2), dots, dots, 2 * setting.dot, 1.0)
    return np.round(255 * np.minimum(canvas, 1)).astype(np.uint8).reshape(count, -1)


def _stamp(
    canvas: np.ndarray, image: np.ndarray, start: np.ndarray, stop: np.ndarray, thickness: float, contrast: float
) -> None:
    """Draw lines from ``start`` (M,) to ``stop`` (M,) into the images of these numbers; no length makes a dot."""
    size = canvas.shape[-1]
    length = np.abs(stop - start)[:, None, None]
    along = np.where(length > 0, (stop - start)[:, None, None], 1) / np.where(length > 0, length, 1)
    reach = int(np.ceil(length.max(initial=0) / 2 + thickness / 2 + 0.5))
    middle, window = (start + stop) / 2, np.arange(-reach, reach + 1)
    x = np.floor(middle.real).astype(int)[:, None, None] + window
    y = np.floor(middle.imag).astype(int)[:, None, None] + window[:, None]
    offset = ((x + 0.5 + 1j * (y + 0.5)).astype(np.complex64) - start[:, None, None]) * along.conj()
    distance = np.hypot(np.maximum(np.maximum(-offset.real, offset.real - length), 0), offset.imag)
    value = contrast * np.clip(thickness / 2 + 0.5 - distance, 0, min(1, thickness))
    drawn = (value > 0) & (np.minimum(x, y) >= 0) & (np.maximum(x, y) < size)
    row, image = np.broadcast_to(y, drawn.shape)[drawn], np.broadcast_to(image[:, None, None], drawn.shape)[drawn]
    np.maximum.at(canvas, (image, row, np.broadcast_to(x, drawn.shape)[drawn]), value[drawn])


def _long_contours(setting: Setting, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Both long contours of BLOCK images (BLOCK, 2, 2 * contour_length), and the gaps (BLOCK,)."""
    tips = np.zeros((setting.contour_length, 2, 2), bool)  # dash, contour, end: they are grown in turn
    tips[0, :, 0] = tips[-1, :, 1] = True
    found: list[np.ndarray] = []
    spaces: list[np.ndarray] = []
    missing = BLOCK
    while missing > 0:
        gaps = rng.choice(np.array(setting.gaps, np.float32), max(2 * missing, 64))
        alive, ends = _grow(setting, rng, gaps, None, tips.reshape(-1))
        if not found and 64 * len(alive) < len(gaps):
            raise ValueError(
                f"pathfinder: contours of {setting.contour_length} dashes hardly fit into {setting.resolution} x "
                f"{setting.resolution} pixels; make contour_length smaller."
            )
        found.append(_fairest(ends.reshape(*ends.shape[:2], *tips.shape)))
        spaces.append(gaps[alive])
        missing -= len(alive)
    return np.concatenate(found)[:BLOCK], np.concatenate(spaces)[:BLOCK]


def _fairest(ends: np.ndarray) -> np.ndarray:
    """Of the candidates (A, CANDIDATES, dash, contour, end), contours (A, 2, E) from which the label cannot be guessed.

    The first end of contour 0 shall be as far from its last end as from that of contour 1: otherwise the distance of
    the dots gives the label away, as contours of this length lead away from where they begin.
    """
    first, last = ends[:, :, 0, :, 0], ends[:, :, -1, :, 1]
    unfair = np.abs(np.abs(last - first) - np.abs(last[:, :, ::-1] - first)).reshape(len(ends), -1)
    candidate, contour = np.divmod(unfair.argmin(1), 2)
    ends = ends[np.arange(len(ends)), candidate].transpose(0, 2, 1, 3).reshape(len(ends), 2, -1)
    return np.where(contour[:, None, None] == 1, ends[:, ::-1], ends)


def _distractor(setting: Setting, rng: np.random.Generator, taken: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """One more short contour (N, 2 * distractor_length) beside the dashes ``taken`` (N, M); AWAY where none fits."""
    length = setting.distractor_length
    ends = np.full((len(taken), 2 * length), AWAY, np.complex64)
    tips = np.zeros(taken.shape[1] + 2 * length, bool)
    tips[: 4 * setting.contour_length].reshape(2, -1)[:, [0, -1]] = True
    for dashes in (length, length, max(length // 2, 1)):
        todo = np.flatnonzero(ends[:, 0].real >= AWAY)
        alive, grown = _grow(setting, rng, gaps[todo], taken[todo], tips[: taken.shape[1] + 2 * dashes])
        ends[todo[alive], : 2 * dashes] = grown[:, 0]
    return ends


def _grow(
    setting: Setting, rng: np.random.Generator, gaps: np.ndarray, taken: np.ndarray | None, tips: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Contours that keep away from each other, from the dashes ``taken`` (N, M), and from the border.

    Every image has CANDIDATES of them that get longer dash by dash. One that runs into something takes over the state
    of another of its image: steps that lead into dead ends die out, as in a particle filter.

    Args:
        setting: the geometry.
        rng: where the turns come from.
        gaps: (N,).
        taken: both ends of the dashes that are there; None grows the two long contours in turn.
        tips: which ends, of those taken and those to come, may carry a dot.

    Returns:
        the images (A,) for which it succeeded, and both ends of their new dashes (A, CANDIDATES, E).
    """
    contours, used = (2, 0) if taken is None else (1, taken.shape[1])
    room = np.where(tips, np.float32(0.5), np.float32(0))  # else dots could touch
    border = np.where(tips, max(_border(setting), setting.dot), _border(setting))
    ends = np.empty((len(gaps), CANDIDATES, len(tips)), np.complex64)
    ends[:, :, :used] = 0 if taken is None else taken[:, None]
    headings: np.ndarray = np.empty((len(gaps), CANDIDATES, contours), np.complex64)
    images: np.ndarray = np.arange(len(gaps))
    for step, now in enumerate(range(used, len(tips), 2)):
        which, last, after = step % contours, now - 2 * contours, now + 2
        if step < contours:
            tail, heading = _start(setting, rng, ends[:, :, 0], step, taken is None)
        else:
            more = now + 2 * contours < len(tips)
            tail, heading = _follow(setting, rng, ends[:, :, last + 1], headings[:, :, which], gaps[:, None], more)
        ends[:, :, now], ends[:, :, now + 1] = tail, tail + np.float32(setting.dash) * heading
        headings[:, :, which] = heading
        good: np.ndarray = np.all(_inside(setting, ends[:, :, now:after], border[now:after]), -1)
        image, candidate = np.nonzero(good)
        free = _apart(ends[image, candidate, :after], room[:after], gaps[image] + setting.space)
        if step >= contours:
            free[:, :, last : last + 2] = True  # the dash that it follows
        good[image, candidate] = free.all((1, 2))
        alive = good.any(1)
        images, gaps, good = images[alive], gaps[alive], good[alive]
        ends, headings = ends[alive], headings[alive]
        image, candidate = np.nonzero(~good)
        source = _stand_ins(rng, good)[image, candidate]
        ends[image, candidate, used:after] = ends[image, source, used:after]
        headings[image, candidate] = headings[image, source]
    return images, ends[:, :, used:]


def _start(
    setting: Setting, rng: np.random.Generator, first: np.ndarray, contour: int, long: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Tails and headings of first dashes, both (N, CANDIDATES)."""
    if contour:
        return first + np.float32(setting.seeds) * _units(rng, first.shape), _units(rng, first.shape)
    margin = 2 * setting.seeds if long else 0
    x, y = rng.uniform(margin, setting.resolution - margin, (2, *first.shape)).astype(np.float32)
    return x + 1j * y, _units(rng, first.shape)


def _follow(
    setting: Setting, rng: np.random.Generator, end: np.ndarray, heading: np.ndarray, gaps: np.ndarray, more: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Tails and headings of the dashes after those that stop at ``end``, all (N, CANDIDATES).

    Of TURNS turns the first is taken after which the next dash, straight ahead, would still be in the image.
    """
    turn = np.interp(rng.random((*end.shape, TURNS), np.float32), SHARE, TABLE) / setting.continuity
    headings = heading[..., None] * np.exp(1j * turn).astype(np.complex64)
    corner = end + gaps / 2 * heading
    ahead = gaps / 2 + setting.dash + (gaps + setting.dash if more else 0)
    inside = _inside(setting, corner[..., None] + ahead[..., None].astype(np.float32) * headings, _border(setting))
    heading = np.take_along_axis(headings, inside.argmax(-1)[..., None], -1)[..., 0]
    return corner + gaps / 2 * heading, heading


def _border(setting: Setting) -> float:
    return 1 + setting.thickness / 2


def _inside(setting: Setting, points: np.ndarray, border: np.ndarray | float) -> np.ndarray:
    half = setting.resolution / 2
    found: np.ndarray = np.maximum(np.abs(points.real - half), np.abs(points.imag - half)) <= half - border
    return found


def _apart(ends: np.ndarray, room: np.ndarray, space: np.ndarray) -> np.ndarray:
    """Whether the last two of ``ends`` (M, E) keep ``space`` (M,) and ``room`` (E,) from the others: (M, 2, E - 2)."""
    new, old = ends[:, -2:, None], ends[:, None, :-2]
    between = new - old
    need = space[:, None, None] + (room[-2:, None] + room[:-2])
    found: np.ndarray = between.real**2 + between.imag**2 >= need**2
    return found


def _stand_ins(rng: np.random.Generator, good: np.ndarray) -> np.ndarray:
    """For each candidate (N, CANDIDATES) a good one of the same image."""
    order = np.argsort(~good, axis=1, kind="stable")
    pick = (rng.random(good.shape) * good.sum(1, keepdims=True)).astype(int)
    return np.take_along_axis(order, pick, 1)


def _units(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random directions."""
    found: np.ndarray = np.exp(1j * rng.uniform(-np.pi, np.pi, shape)).astype(np.complex64)
    return found


def _pairs(points: np.ndarray) -> np.ndarray:
    """Complex numbers (...) -> x, y (..., 2)."""
    return np.stack([points.real, points.imag], -1)
