"""Published networks as arrays: an .npz of parameters -> our model, and the way back.

The names and shapes are those of the published S5-RF, for L layers of P neurons, d_input features and C classes::

    layers.{i}.B_tilde   (P, d_input or P, 2)   complex dense map as real and imaginary part
    layers.{i}.log_decay, .omega, .log_eta      (P,) each; (P, 1) for log_eta is taken too
    layers.{i}.V         (P, P, 2)              or (P, P) complex: n x n blocks, all equal; only layer 0 may use it
    readout.W            (C, P, 2)              its imaginary half acts on nothing
    readout.tau          (C,)
"""

import inspect
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdn.runs.files import writing
from spikingssm.datasets.numpy_files import read_npz
from spikingssm.layers.maps import weight_of
from spikingssm.models.s5rf import S5RF

__all__ = ["s5rf_from_npz", "s5rf_to_npz"]

_SLOW = ("log_decay", "omega", "log_eta")
_SIZES = {"d_input", "d_output", "d_model", "n_layers"}
RANGES = {
    "log_decay": (-20.0, 20.0),
    "omega": (-1e8, 1e8),
    "log_eta": (-30.0, 5.0),
    "V": (-1.01, 1.01),
    "tau": (-50.0, 50.0),
}
"""What a published array may hold: exponents that are finite, frequencies of HiPPO matrices of up to 10,000 states,
entries of unitary matrices, and factors that differ from 0 and 1."""
LARGEST = 1e9
"""No weight of a published network comes near it."""
_NAME = re.compile(r"layers\.(\d+)\.(B_tilde|log_decay|omega|log_eta|V)|readout\.(W|tau)")


def s5rf_from_npz(path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32, **options: Any) -> S5RF:
    """The network that the arrays of an .npz file describe.

    Args:
        path: the file. It is read without pickle.
        dtype: of the parameters, float32 or float64.
        options: of `S5RF`, for what the arrays do not say: ``first_discretisation``, ``discretisation``, ``magnitude``,
            ``refractory``, ``skip``, ``solver`` and so on. Sizes are read from the arrays; so is ``num_blocks`` where
            layer 0 is turned back by its V (``zoh`` there, unless ``spectrum="random"``). A file with V does not say
            whether it is used, so ``first_discretisation`` must.

    Returns:
        the model, in training mode like every new one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another kind, an array that is missing, unknown, of another shape or kind, not finite or
            out of range, or options that contradict the arrays.

    Source: Huber et al., ECCV 2024 workshops (arXiv 2504.00719). Where we differ: the imaginary half of ``readout.W``
    is dropped, since spikes are real and only the real part of the product is read; V of the later layers, the
    identity there, is checked and not used.
    """
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"s5rf_from_npz: dtype must be torch.float32 or torch.float64, got {dtype}.")
    if unknown := sorted(options.keys() - inspect.signature(S5RF).parameters.keys()):
        raise ValueError(f"s5rf_from_npz: {unknown[0]!r} is no option of S5RF.")
    read = _read(Path(path))
    if given := sorted(_SIZES & options.keys()):
        raise ValueError(f"s5rf_from_npz: {', '.join(given)}: sizes are read from {path}; leave them out.")
    depth, shapes = _shapes(path, read)
    arrays: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        arrays[name] = _checked(path, name, read[name], shape, dtype)
        _check_range(path, name, arrays[name])
    d_model, d_input, _ = arrays["layers.0.B_tilde"].shape
    block = None
    if "layers.0.V" in arrays and "first_discretisation" not in options:
        raise ValueError(
            f"{path}: layers.0.V {tuple(arrays['layers.0.V'].shape)} is used with zoh in layer 0 and not else; say "
            "which: first_discretisation='zoh', 'dirac' or 'bilinear'."
        )
    first = options.get("first_discretisation") or options.get("discretisation")
    if first == "zoh" and options.get("spectrum", "hippo") == "hippo":
        block = _block(path, arrays.get("layers.0.V"), d_model, options.get("num_blocks"))
        options["num_blocks"] = d_model // len(block)
    options.setdefault("num_blocks", 1)  # nothing but start values depends on it then
    model = S5RF(d_input, len(arrays["readout.tau"]), d_model, depth, **options).to(dtype)
    _fill(model, arrays, block)
    return model


def s5rf_to_npz(path: str | os.PathLike[str], model: S5RF) -> None:
    """Write the parameters of a model under the published names and shapes; the dead half of the readout is zero.

    The file is whole or absent. It does not hold what `s5rf_from_npz` takes as options.

    Args:
        path: of the file, .npz; overwritten.
        model: the network.

    Raises:
        ValueError: another kind of model.
    """
    if not isinstance(model, S5RF):
        raise ValueError(f"s5rf_to_npz: the model must be an S5RF, got {type(model).__name__}.")
    arrays: dict[str, Tensor] = {}
    for i, layer in enumerate(model.layers):
        arrays[f"layers.{i}.B_tilde"] = torch.stack(weight_of(layer.dense).chunk(2), -1)
        arrays |= {f"layers.{i}.{name}": getattr(layer.neuron, name) for name in _SLOW}
        if layer.neuron.rotation is not None:
            real, imag = layer.neuron.rotation
            copies = len(layer.neuron.omega) // len(real)
            arrays[f"layers.{i}.V"] = torch.stack([_repeated(plane, copies) for plane in (real, imag)], -1)
    weight = model.readout.weight
    arrays["readout.W"] = torch.stack([weight, torch.zeros_like(weight)], -1)
    arrays["readout.tau"] = model.readout.tau
    with writing(path) as partial, partial.open("wb") as file:
        plain: dict[str, Any] = {name: _plain(tensor) for name, tensor in arrays.items()}
        np.savez(file, **plain)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; s5rf_from_npz reads an .npz of published parameters.")
    return read_npz(path)


def _shapes(path: Any, arrays: Mapping[str, np.ndarray]) -> tuple[int, dict[str, tuple[int, ...]]]:
    """The number of layers and the shape that every array must have."""
    unknown = sorted(name for name in arrays if not _NAME.fullmatch(name))
    if unknown:
        raise ValueError(f"{path}: unknown array {unknown[0]}; known are layers.{{i}}.B_tilde, .log_decay, .omega, "
                         ".log_eta, .V and readout.W, readout.tau.")  # fmt: skip
    numbers = {int(match[1]) for name in arrays if (match := _NAME.fullmatch(name)) and match[1]}
    depth = next(i for i in range(len(numbers) + 1) if i not in numbers)
    depth += depth < max(numbers, default=0) or not numbers  # a gap: the layer that is missing is named below
    needed = [f"layers.{i}.{name}" for i in range(depth) for name in ("B_tilde", *_SLOW)] + ["readout.W", "readout.tau"]
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise ValueError(f"{path}: array {missing[0]} is missing; a network of {depth} layers has {', '.join(needed)}.")
    first, W = arrays["layers.0.B_tilde"], arrays["readout.W"]
    for name, array, axes in (("layers.0.B_tilde", first, "(P, d_input, 2)"), ("readout.W", W, "(C, P, 2)")):
        if array.ndim != 3 or 0 in array.shape or array.shape[2] != 2:
            raise ValueError(f"{path}: {name} has shape {array.shape}, it must be {axes}.")
    P, d_input = first.shape[:2]
    shapes: dict[str, tuple[int, ...]] = {"readout.W": (len(W), P, 2), "readout.tau": (len(W),)}
    for i in range(depth):
        shapes[f"layers.{i}.B_tilde"] = (P, P if i else d_input, 2)
        shapes |= {f"layers.{i}.{name}": (P,) for name in _SLOW}
        if f"layers.{i}.V" in arrays:
            shapes[f"layers.{i}.V"] = (P, P, 2)
    return depth, shapes


def _checked(path: Any, name: str, array: np.ndarray, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    found = array.shape
    if name.endswith(".log_eta") and found == (*shape, 1):
        array = array[:, 0]
    if name.endswith(".V") and array.dtype.kind == "c":
        array = np.stack([array.real, array.imag], -1)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: {name} holds {array.dtype}, it must hold real floating-point numbers.")
    if array.shape != shape:
        raise ValueError(f"{path}: {name} has shape {found}, it must be {shape} as layers.0.B_tilde and readout.W are.")
    tensor = torch.from_numpy(array.astype(np.float64)).to(dtype)
    if not torch.isfinite(tensor).all():
        where = tuple((~torch.isfinite(tensor)).nonzero()[0].tolist())
        raise ValueError(f"{path}: {name} of shape {found} is not finite in {dtype} at {where}: {array[where]}.")
    return tensor


def _check_range(path: Any, name: str, array: Tensor) -> None:
    """Refuse numbers that no training ends with: they would be a network that is silent or infinite, without a word."""
    low, high = RANGES.get(name.rpartition(".")[2], (-LARGEST, LARGEST))
    if (wrong := (array < low) | (array > high)).any():
        where = tuple(wrong.nonzero()[0].tolist())
        raise ValueError(
            f"{path}: {name} is {array[where].item():g} at {where}, it must be from {low:g} to {high:g}; is it the "
            "file as it was published?"
        )


def _block(path: Any, V: Tensor | None, neurons: int, num_blocks: int | None) -> Tensor:
    """The block (n, n, 2) that V (P, P, 2) repeats along its diagonal; the smallest one unless num_blocks is given."""
    if V is None:
        raise ValueError(
            f"{path}: array layers.0.V ({neurons}, {neurons}, 2) is missing, which zoh in layer 0 turns its state back "
            "with (eigenvectors made anew differ in phase); add it, or give another first_discretisation."
        )
    sizes = [n for n in range(1, neurons + 1) if neurons % n == 0]
    if num_blocks is not None:
        sizes = [n for n in sizes if n * num_blocks == neurons]
    for n in sizes:
        block = V[:n, :n]
        if torch.equal(torch.stack([_repeated(plane, neurons // n) for plane in block.unbind(-1)], -1), V):
            return block
    raise ValueError(
        f"{path}: layers.0.V of shape {tuple(V.shape)} does not repeat one block num_blocks={num_blocks} times along "
        "its diagonal; give the number of blocks it was made of, or leave num_blocks out."
    )


def _repeated(block: Tensor, times: int) -> Tensor:
    """A block (n, n) so often along the diagonal of a matrix that is 0 elsewhere."""
    found: Tensor = torch.block_diag(*[block] * times)  # type: ignore[no-untyped-call]
    return found


def _plain(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).numpy()


@torch.no_grad()
def _fill(model: S5RF, arrays: Mapping[str, Tensor], block: Tensor | None) -> None:
    for i, layer in enumerate(model.layers):
        layer.dense.weight.copy_(torch.cat(arrays[f"layers.{i}.B_tilde"].unbind(-1)))
        for name in _SLOW:
            getattr(layer.neuron, name).copy_(arrays[f"layers.{i}.{name}"])
    rotation = model.layers[0].neuron.rotation
    if block is not None and rotation is not None:
        rotation.copy_(block.movedim(-1, 0))
    model.readout.weight.copy_(arrays["readout.W"][..., 0])
    model.readout.tau.copy_(arrays["readout.tau"])
