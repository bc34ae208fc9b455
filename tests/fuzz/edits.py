"""Changes by somebody who knows a format: values of other kinds, tensors of other shapes, bombs."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdn.runs.tensor_files import save_tensors

__all__ = [
    "WRONG",
    "bombed_torch",
    "change_place",
    "edited_json",
    "edited_npz",
    "edited_torch",
    "places",
    "wrong_tensor",
]

WRONG = [
    None, True, 0, -1, 1.5, float("nan"), float("inf"), 1e300, 2**31, 2**63, 10**30, "", "x", "x" * 5000, [], [1, 2],
    {}, {"a": 1}, [[[[]]]],
]  # fmt: skip
"""Values of other kinds than those that belong somewhere."""


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in nested containers."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at] * bool(at) + [place for key, part in inner for place in places(part, (*at, key))]


def change_place(draw: random.Random, value: Any, others: list[Any] = WRONG) -> None:
    """Change, remove, add or double something in nested containers."""
    place = draw.choice(places(value))
    for key in place[:-1]:
        value = value[key]
    way = draw.choice(["change", "change", "change", "remove", "add"])
    if way == "remove":
        del value[place[-1]]
    elif way == "add" and isinstance(value, dict):
        value[draw.choice(["x", "epoch", "digest", "_partial_", "n_layers", ""])] = draw.choice(others)
    else:
        value[place[-1]] = draw.choice(others)


def wrong_tensor(draw: random.Random, tensor: torch.Tensor) -> Any:
    """A tensor of another kind, shape or range."""
    ways: list[Callable[[], Any]] = [
        lambda: tensor.int(), lambda: tensor > 0, lambda: tensor * 1j, lambda: tensor.double(), lambda: tensor.half(),
        lambda: tensor * float("nan"), lambda: tensor * 1e30, lambda: tensor.flatten()[:0], lambda: tensor[None],
        lambda: torch.cat([tensor, tensor]), lambda: tensor.T.contiguous(), lambda: tensor.to("meta"),
        lambda: tensor.float().to_sparse(), lambda: tensor.flatten()[:1].expand(10**9), lambda: tensor.tolist(),
        lambda: tensor + 1, lambda: -tensor, lambda: torch.zeros(()),
    ]  # fmt: skip
    while True:
        try:
            return draw.choice(ways)()
        except (RuntimeError, TypeError):  # not for this kind of tensor
            continue


def edited_torch(name: str, sealed: bool, wrong: list[Any] = WRONG) -> Callable[[random.Random, Path], None]:
    """Change one value or tensor of a torch file and write it again, with a seal or without."""

    def edit(draw: random.Random, folder: Path) -> None:
        found = torch.load(folder / name, weights_only=True)
        found = _lists(found)
        tensors = [place for place in places(found) if isinstance(_at(found, place), torch.Tensor)]
        if tensors and draw.random() < 0.6:
            place = draw.choice(tensors)
            _at(found, place[:-1])[place[-1]] = wrong_tensor(draw, _at(found, place))
        else:
            change_place(draw, found, wrong)
        (save_tensors if sealed else lambda path, value: torch.save(value, path))(folder / name, found)

    edit.__name__ = f"{'sealed' if sealed else 'plain'} {name}"
    return edit


def bombed_torch(name: str) -> Callable[[random.Random, Path], None]:
    """Containers that hold each other, or are nested deeply, inside a torch file."""

    def bomb(draw: random.Random, folder: Path) -> None:
        found, inner = _lists(torch.load(folder / name, weights_only=True)), [1] * 10
        for _ in range(draw.choice([3, 12, 30])):
            inner = [inner] * draw.choice([1, 10])
        place = draw.choice(places(found))
        _at(found, place[:-1])[place[-1]] = inner
        torch.save(found, folder / name)

    bomb.__name__ = f"bomb {name}"
    return bomb


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(inner) for key, inner in value.items()}
    return [_lists(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def edited_npz(name: str) -> Callable[[random.Random, Path], None]:
    """Change an array of an .npz file, or its name."""

    def edit(draw: random.Random, folder: Path) -> None:
        with np.load(folder / name) as file:
            arrays = dict(file)
        key = draw.choice([*arrays])
        array = arrays[key]
        ways: list[Callable[[], Any]] = [
            lambda: array.astype(">f4"), lambda: array.astype(np.longdouble), lambda: array.astype(complex),
            lambda: array.astype(str), lambda: array * np.nan, lambda: array * 1e30, lambda: array[:0],
            lambda: array[None], lambda: array.T, lambda: -array.astype(float), lambda: array.astype(np.int64) + 10**12,
            lambda: array.astype(np.uint8), lambda: np.concatenate([array, array]), lambda: np.array(3),
            lambda: array > 0, lambda: np.zeros((2**20, 0, 3)), lambda: np.broadcast_to(array.flat[0], (2**22,)),
            lambda: array.astype("M8[s]") if array.dtype.kind == "i" else array.astype(bool),
        ]  # fmt: skip
        way = draw.choice(["change"] * 5 + ["remove", "rename"])
        changed = arrays.pop(key)
        if way != "remove":
            arrays[key if way == "change" else f"{key}x"] = draw.choice(ways)() if way == "change" else changed
        draw.choice([np.savez, np.savez_compressed])(folder / name, **arrays)

    edit.__name__ = f"edited {name}"
    return edit


def edited_json(name: str) -> Callable[[random.Random, Path], None]:
    """Change a value of a JSON file."""

    def edit(draw: random.Random, folder: Path) -> None:
        found = json.loads((folder / name).read_text())
        change_place(draw, found)
        text = json.dumps(found)
        if draw.random() < 0.2:
            text = draw.choice(["[" * 50_000, '{"a":' * 20_000, text + text, text.replace(":", ""), "9" * 6000, "null"])
        (folder / name).write_text(text)

    edit.__name__ = f"edited {name}"
    return edit
