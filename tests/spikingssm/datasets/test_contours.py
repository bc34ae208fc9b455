"""Drawn contours: geometry and pixels agree with the label, and nothing simpler does."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import ndimage
from scipy.sparse.csgraph import connected_components

from spikingssm.datasets.contours import BLOCK, SETTINGS, Scenes, draw, render

SIZES = list(SETTINGS)


@cache
def block(size: int, seed: int = 0, stream: int = 0, number: int = 0) -> tuple[Scenes, np.ndarray]:
    scenes = draw(SETTINGS[size], seed, stream, number)
    return scenes, render(SETTINGS[size], scenes).reshape(BLOCK, size, size)


def to_segment(points: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Distances (P, S) of points (P, 2) from segments (S, 2, 2)."""
    start, along = segments[:, 0], segments[:, 1] - segments[:, 0]
    offset = points[:, None] - start
    share = np.clip((offset * along).sum(-1) / (along**2).sum(-1), 0, 1)
    return np.linalg.norm(offset - share[..., None] * along, axis=-1)


def distances(segments: np.ndarray) -> np.ndarray:
    """Distances (S, S) between segments; those that cross have 0."""
    ends = np.minimum(to_segment(segments[:, 0], segments), to_segment(segments[:, 1], segments))
    start, along = segments[:, 0], segments[:, 1] - segments[:, 0]
    left, right = (segments[:, None, end] - start for end in (0, 1))
    cut = np.linalg.det(np.stack(np.broadcast_arrays(along, left), -1)) * np.linalg.det(
        np.stack(np.broadcast_arrays(along, right), -1)
    )
    return np.where((cut < 0) & (cut.T < 0), 0, np.minimum(ends, ends.T))


@pytest.mark.parametrize("size", SIZES)
def test_the_label_says_whether_dashes_a_gap_apart_join_the_dots(size) -> None:
    setting, (scenes, _) = SETTINGS[size], block(size)
    for ends, placed, dots, label, gap in zip(
        scenes.ends[:40], scenes.placed, scenes.dots, scenes.labels, scenes.gaps, strict=False
    ):
        segments = ends[placed].astype(float)
        apart = distances(segments)
        joined = apart <= gap + 1e-3
        _, part = connected_components(joined)
        one, other = (part[to_segment(dot[None], segments)[0].argmin()] for dot in dots)
        assert (one == other) == label
        assert to_segment(dots, segments).min(1).max() < 1e-3
        assert apart[~joined].min() ** 2 >= (gap + setting.space) ** 2 - (setting.dash / 2) ** 2 - 1e-2


@pytest.mark.parametrize("size", SIZES)
def test_the_pixels_show_the_label(size) -> None:
    (scenes, images), right = block(size), 0
    zoom, reach = (4, np.full(BLOCK, 0.25)) if size == 32 else (1, 0.4 * scenes.gaps)
    for image, dots, label, near in zip(images, scenes.dots, scenes.labels, reach, strict=True):
        bright = ndimage.zoom(image.astype(np.float32), zoom, order=1, grid_mode=True, mode="nearest") > 30
        grown = ndimage.distance_transform_edt(~bright) <= zoom * near
        parts, _ = ndimage.label(grown, np.ones((3, 3)))
        column, row = np.minimum(dots * zoom, zoom * size - 1).astype(int).T
        right += (parts[row[0], column[0]] == parts[row[1], column[1]]) == label
    assert right / BLOCK > 0.95


@pytest.mark.parametrize("size", SIZES)
def test_contours_turn_and_pause_as_the_setting_says(size) -> None:
    setting, (scenes, _) = SETTINGS[size], block(size)
    assert set(scenes.gaps) == set(setting.gaps)
    for contour in range(2 + setting.distractors):
        ends = scenes.ends[:, scenes.contour == contour] @ np.array([1, 1j])
        whole = scenes.placed[:, scenes.contour == contour].all(1)
        ends, gaps = ends[whole], scenes.gaps[whole, None]
        heading = np.diff(ends, axis=2)[..., 0]
        np.testing.assert_allclose(np.abs(heading), setting.dash, atol=1e-4)
        turn = np.angle(heading[:, 1:] / heading[:, :-1])
        assert np.abs(turn).max() <= np.pi / 2 / setting.continuity + 1e-4
        pause = ends[:, 1:, 0] - ends[:, :-1, 1]
        np.testing.assert_allclose(np.abs(pause), gaps * np.cos(turn / 2), atol=1e-4)
        np.testing.assert_allclose(np.angle(pause / heading[:, :-1]), turn / 2, atol=1e-3)
        seen = scenes.placed.sum(1).mean()
    assert seen > 2 * setting.contour_length + (6 if size == 32 else 30)


def best_guess(number: np.ndarray, labels: np.ndarray) -> float:
    """The best accuracy of a threshold on one number an image."""
    above = number > np.quantile(number, np.linspace(0.05, 0.95, 19))[:, None]
    right = (above == labels).mean(1)
    return float(np.maximum(right, 1 - right).max())


def test_neither_distance_nor_brightness_nor_place_gives_the_label_away() -> None:
    drawn = [block(32, number=number) for number in range(1024 // BLOCK)]
    labels = np.concatenate([scenes.labels for scenes, _ in drawn])
    dots = np.concatenate([scenes.dots for scenes, _ in drawn])
    images = np.concatenate([images for _, images in drawn]).reshape(len(labels), -1)
    assert best_guess(np.linalg.norm(dots[:, 0] - dots[:, 1], axis=1), labels) < 0.57
    assert best_guess(images.sum(1, dtype=float), labels) < 0.57
    for place in dots.reshape(-1, 4).T:
        assert best_guess(place, labels) < 0.57


@pytest.mark.parametrize("size", SIZES)
def test_dots_of_either_class_are_equally_far_apart(size) -> None:
    scenes, _ = block(size)
    long = [scenes.ends[:, scenes.contour == contour] for contour in (0, 1)]
    own, other = (np.linalg.norm(ends[:, -1, 1] - long[0][:, 0, 0], axis=1) for ends in long)
    apart = np.linalg.norm(scenes.dots[:, 0] - scenes.dots[:, 1], axis=1)
    np.testing.assert_allclose(apart, np.where(scenes.labels == 1, own, other), atol=1e-4)
    assert np.median(np.abs(own - other)) < size / 32


def test_brightness_grows_by_thickness_and_contrast() -> None:
    setting = SETTINGS[32]
    random = np.random.default_rng(0)
    start, angle = random.uniform(8, 24, (400, 2)), random.uniform(0, 2 * np.pi, 400)
    none = np.full((400, 2, 2), 1e4)
    totals = []
    for length in (2.0, 5.0):
        ends = np.stack([start, start + length * np.stack([np.cos(angle), np.sin(angle)], -1)], 1)[:, None]
        scenes = Scenes(ends, np.zeros(1, int), np.ones((400, 1), bool), none, none, none)
        totals.append(render(setting, scenes).sum(1).mean() / 255)
    assert (totals[1] - totals[0]) / 3 == pytest.approx(setting.thickness * setting.contrast, rel=0.01)
    dots = Scenes(ends, np.zeros(1, int), np.zeros((400, 1), bool), np.stack([start, start], 1), none, none)
    area = np.pi * (setting.dot**2 + 1 / 12)  # of a disc whose edge falls off over one pixel
    assert render(setting, dots).sum(1).mean() / 255 == pytest.approx(area, rel=0.01)


def test_images_depend_on_their_block_their_stream_and_the_seed() -> None:
    setting = replace(SETTINGS[32], contour_length=4, distractors=1)
    names = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    drawn = [render(setting, draw(setting, *name)) for name in names]
    np.testing.assert_array_equal(render(setting, draw(setting, *names[2])), drawn[2])
    assert len({bytes(image) for images in drawn for image in images}) == 4 * BLOCK


def test_more_distractors_and_other_lengths_are_drawn() -> None:
    setting = replace(SETTINGS[32], contour_length=9, distractors=7)
    scenes = draw(setting, 0, 0, 0)
    assert np.bincount(scenes.contour).tolist() == [9, 9] + [4] * 7
    assert scenes.placed[:, :18].all()
    assert scenes.placed.sum(1).mean() > block(32)[0].placed[:, 28:].sum(1).mean() + 18
