"""Published checkpoints of BRF, RF and ALIF networks: a .pt of arrays -> our model, the way back, and a run folder.

A torch zip file with a dict whose ``model_state_dict`` (or which itself) holds, for H neurons, d_input features and C
classes::

    hidden.linear.weight   (H, d_input + H)      columns of the inputs, then of the neurons
    hidden.linear.bias     (H,)                  may be missing, as out.linear.bias (C,)
    hidden.linear.mask     (H, d_input + H)      0 and 1; may be missing
    hidden.omega, hidden.b_offset                (H,) raw, used by magnitude: BRF and RF, under the same names
    hidden.tau_mem, hidden.tau_adp               (H,) in steps, > 0: ALIF
    out.linear.weight      (C, H)
    out.tau_mem            (C,) in steps, > 0
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdn import ALIF, BRF, RF, Dynamics, Solver
from sdn.runs.tensor_files import Damaged, load_tensors, save_tensors
from spikingssm.layers.maps import weight_of
from spikingssm.models.rsnn import RSNN

__all__ = ["rsnn_from_pt", "rsnn_to_pt"]

OWN = {
    "brf": {"omega": "hidden.omega", "b_offset": "hidden.b_offset"},
    "rf": {"omega": "hidden.omega", "damping": "hidden.b_offset"},
    "alif": {"tau_m": "hidden.tau_mem", "tau_a": "hidden.tau_adp"},
}
"""Our learned field -> the published name, for each neuron."""
LARGEST = 1e9
"""No weight of a published network comes near it."""
WEIGHT, BIAS, MASK = (f"hidden.linear.{name}" for name in ("weight", "bias", "mask"))
OUT, OUT_BIAS, OUT_TAU = "out.linear.weight", "out.linear.bias", "out.tau_mem"


def rsnn_from_pt(
    path: str | os.PathLike[str],
    neuron: str | None = None,
    *,
    dt: float = 0.01,
    pool: str = "each",
    solver: str | Solver = "fused",
    dtype: torch.dtype = torch.float32,
) -> RSNN:
    """The network that a published checkpoint describes.

    Args:
        path: of the .pt file. Only tensors and plain values are read; nothing in it is executed.
        neuron: "brf", "rf" or "alif". The file does not say which of BRF and RF it is of, so it must be told.
        dt: length of a step in units of time, > 0; 0.01 in all that is published. ALIF has none.
        pool: what becomes of the potentials, see `RSNN`; the file does not say it either.
        solver: "fused" or "loop".
        dtype: of the parameters, float32 or float64.

    Returns:
        the model, in training mode like every new one. Raw values keep their signs; a mask of ones is dropped.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, an array that is missing, unknown, of another shape or kind or not finite, a
            neuron that the arrays are not of, an omega above 1/dt, a b_offset above 2/dt, a time constant that is not
            above 0, or weights that no training ends with.

    Source: Higuchi, Kairat, Bohte, Otte, ICML 2024 (arXiv 2402.14603); github.com/AdaptiveAILab/brf-neurons.
    """
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"rsnn_from_pt: dtype must be torch.float32 or torch.float64, got {dtype}.")
    if not dt > 0:
        raise ValueError(f"rsnn_from_pt: dt must be > 0, got {dt}.")
    found = read(path, neuron)
    arrays = {name: _numbers(path, name, tensor, dtype) for name, tensor in found.arrays.items()}
    _check_ranges(path, arrays, dt)
    if found.neuron != "alif":
        _check_omega(path, arrays["hidden.omega"], dt)
    model = RSNN(
        found.inputs,
        found.classes,
        found.hidden,
        dynamics=_dynamics(found.neuron, dt),
        learn=dict.fromkeys(OWN[found.neuron]),
        bias=found.bias,
        mask=None if found.mask is None else 0.0,
        pool=pool,
        solver=solver,
    ).to(dtype)
    _fill(model, arrays, found.mask, found.neuron)
    return model


def rsnn_to_pt(path: str | os.PathLike[str], model: RSNN, *, epoch: int = 0, loss: float = math.nan) -> None:
    """Write the parameters of a model under the published names and shapes; the file is whole or absent.

    It does not hold which of BRF and RF it is of, dt, nor the pool: `rsnn_from_pt` is told these.

    Args:
        path: of the file, .pt; overwritten.
        model: one layer of BRF, RF or ALIF; fields that the file has and the model does not learn become arrays.
        epoch, loss: what the file says of the training.

    Raises:
        ValueError: another model, or neurons that differ from the published ones in what the file does not hold.
    """
    arrays = _published(model)
    content = {"epoch": epoch, "loss": loss, "model_state_dict": arrays, "optimizer_state_dict": {}}
    save_tensors(path, content)


class Published(NamedTuple):
    """What a checkpoint holds: arrays by their published names, all there and of shapes that fit each other."""

    neuron: str
    arrays: dict[str, Tensor]
    """Without the mask."""
    mask: Tensor | None
    """Recurrent connections that are there, (H, H) of 0 and 1; None for all."""
    epoch: int
    """As it says, else 0."""

    @property
    def inputs(self) -> int:
        """d_input."""
        return self.arrays[WEIGHT].shape[1] - self.hidden

    @property
    def hidden(self) -> int:
        """H."""
        return len(self.arrays[WEIGHT])

    @property
    def classes(self) -> int:
        """C."""
        return len(self.arrays[OUT])

    @property
    def bias(self) -> bool:
        """Whether there is a bias anywhere."""
        return BIAS in self.arrays or OUT_BIAS in self.arrays


def read(path: str | os.PathLike[str], neuron: str | None = None) -> Published:
    """What a checkpoint holds; arguments and errors as in `rsnn_from_pt`."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; give a published checkpoint, a .pt file.")
    try:
        found = load_tensors(path)
    except Damaged as error:
        raise ValueError(
            f"{path}: no torch zip file, or one that is cut off or damaged, or not a torch file of tensors and plain "
            f"values alone ({error}); give a published checkpoint (.pt)."
        ) from None
    arrays = found.get("model_state_dict", found) if isinstance(found, dict) else found
    if not isinstance(arrays, Mapping) or not all(isinstance(name, str) for name in arrays):
        raise ValueError(
            f"{path}: holds a {type(arrays).__name__}, a published checkpoint a dict with model_state_dict, or a "
            "state_dict itself."
        )
    if strangers := [name for name, value in arrays.items() if not isinstance(value, Tensor)]:
        raise ValueError(
            f"{path}: {strangers[0]} is a {type(arrays[strangers[0]]).__name__} and no tensor; a checkpoint of our own "
            "runs is evaluated by its run folder."
        )
    neuron = _which(path, arrays, neuron)
    arrays = _fitting(path, arrays, neuron)
    mask = _mask(path, arrays.pop(MASK, None), arrays[WEIGHT].shape[1] - len(arrays[WEIGHT]))
    epoch = found.get("epoch") if "model_state_dict" in found else 0
    counted = isinstance(epoch, int) and not isinstance(epoch, bool) and 0 <= epoch < 2**31
    return Published(neuron, arrays, mask, epoch if counted else 0)


def _which(path: Any, arrays: Mapping[str, Tensor], neuron: str | None) -> str:
    """The neuron that was told, or ALIF by its names; BRF and RF have the same names, so one of them must be told."""
    kinds = " or ".join(repr(kind) for kind in OWN)
    if neuron is not None and neuron not in OWN:
        raise ValueError(f"{path}: neuron must be {kinds}, got {neuron!r}.")
    of_alif, of_rf = (any(name in arrays for name in OWN[kind].values()) for kind in ("alif", "brf"))
    if neuron is None:
        if of_alif and not of_rf:
            return "alif"
        raise ValueError(
            f"{path}: the arrays of BRF and RF have the same names, so the file does not say which it is of; say "
            "'brf' or 'rf' (--neuron brf, --neuron rf); the name of the published file does."
        )
    if of_alif and not of_rf and neuron != "alif":
        raise ValueError(f"{path}: has the arrays of ALIF (hidden.tau_mem), not of {neuron.upper()}; say 'alif'.")
    if of_rf and not of_alif and neuron == "alif":
        raise ValueError(f"{path}: has the arrays of BRF or RF (hidden.omega), not of ALIF; say 'brf' or 'rf'.")
    return neuron


def _fitting(path: Any, arrays: Mapping[str, Tensor], neuron: str) -> dict[str, Tensor]:
    """The arrays, if these are all there and of shapes that fit each other."""
    own, optional = list(OWN[neuron].values()), [BIAS, MASK, OUT_BIAS]
    needed = [WEIGHT, *own, OUT, OUT_TAU]
    if missing := [name for name in needed if name not in arrays]:
        raise ValueError(f"{path}: array {missing[0]} is missing; a {neuron.upper()} network has {', '.join(needed)}.")
    if unknown := sorted(set(arrays) - {*needed, *optional}):
        raise ValueError(f"{path}: unknown array {unknown[0]}; known are {', '.join([*needed, *optional])}.")
    for name in (WEIGHT, OUT):
        if arrays[name].ndim != 2 or 0 in arrays[name].shape:
            raise ValueError(f"{path}: {name} has shape {tuple(arrays[name].shape)}, it must have two axes, not empty.")
    (hidden, columns), classes = arrays[WEIGHT].shape, len(arrays[OUT])
    if columns <= hidden:
        raise ValueError(
            f"{path}: {WEIGHT} has shape {(hidden, columns)}; it must be (H, d_input + H), more columns than rows."
        )
    shapes = {WEIGHT: (hidden, columns), MASK: (hidden, columns), BIAS: (hidden,), OUT: (classes, hidden)}
    shapes |= {OUT_BIAS: (classes,), OUT_TAU: (classes,)} | dict.fromkeys(own, (hidden,))
    for name, tensor in arrays.items():
        if tuple(tensor.shape) != shapes[name]:
            raise ValueError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, it must be {shapes[name]} as {WEIGHT} "
                f"{(hidden, columns)} and {OUT} {tuple(arrays[OUT].shape)} say."
            )
    return dict(arrays)


def _numbers(path: Any, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized or tensor.is_meta:
        raise ValueError(f"{path}: {name} is a {tensor.layout} tensor of {tensor.dtype}, it must hold plain numbers.")
    numbers = tensor.detach().to(dtype)
    if not torch.isfinite(numbers).all():
        where = tuple((~torch.isfinite(numbers)).nonzero()[0].tolist())
        raise ValueError(f"{path}: {name} of shape {tuple(tensor.shape)} is not finite at {where}: {tensor[where]}.")
    return numbers


def _check_ranges(path: Any, arrays: Mapping[str, Tensor], dt: float) -> None:
    """Refuse numbers that no training ends with: they would be a network that is silent or infinite, without a word."""
    taus = {name: (1e-3, 1e6) for name in arrays if "tau_" in name}
    ranges = {**dict.fromkeys(arrays, (-LARGEST, LARGEST)), **taus}
    for name, (low, high) in ranges.items():
        if (wrong := (arrays[name] < low) | (arrays[name] > high)).any():
            where = tuple(wrong.nonzero()[0].tolist())
            raise ValueError(
                f"{path}: {name} is {arrays[name][where].item():g} at {where}, it must be from {low:g} to {high:g}; is "
                "it the file as it was published?"
            )
    offset = arrays.get("hidden.b_offset")
    if offset is not None and (largest := offset.abs().max().item()) * dt > 2:
        raise ValueError(
            f"{path}: hidden.b_offset has the magnitude {largest:g}, with dt {dt:g} no more than 2/dt = {2 / dt:g} can "
            "be stable; lower dt, if the network was trained so."
        )


def _check_omega(path: Any, omega: Tensor, dt: float) -> None:
    largest, fastest = (found.item() for found in omega.abs().max(0))
    if largest * dt > 1:
        raise ValueError(
            f"{path}: neuron {fastest} has |omega| {largest:g}, with dt {dt:g} no more than 1/dt = {1 / dt:g} can be "
            f"stable; lower dt to {1 / largest:.3g} or less, if the network was trained so."
        )


def _mask(path: Any, mask: Tensor | None, inputs: int) -> Tensor | None:
    """Which recurrent connections there are, (H, H); None for all of them."""
    if mask is None or (mask == 1).all():
        return None
    if not ((mask == 0) | (mask == 1)).all() or not (mask[:, :inputs] == 1).all():
        raise ValueError(f"{path}: {MASK} must hold 0 and 1, and 1 in the {inputs} columns of the inputs.")
    return mask[:, inputs:]


def _dynamics(neuron: str, dt: float) -> Dynamics:
    """The published neuron; what is learned takes the place of its own values, which only have to be valid."""
    if neuron == "alif":
        return ALIF()
    return BRF(omega=0.1 / dt, dt=dt) if neuron == "brf" else RF(omega=0.1 / dt, damping=0.01 / dt, dt=dt)


@torch.no_grad()
def _fill(model: RSNN, arrays: Mapping[str, Tensor], mask: Tensor | None, neuron: str) -> None:
    layer: Any = model.layers[0]
    inputs = arrays[WEIGHT].shape[1] - len(arrays[WEIGHT])
    layer.input.weight.copy_(arrays[WEIGHT][:, :inputs])
    layer.recurrent.weight.copy_(arrays[WEIGHT][:, inputs:])
    if mask is not None:
        layer.mask.copy_(mask)
    for field, name in OWN[neuron].items():
        layer.learned[field].copy_(arrays[name])
    model.readout.weight.copy_(arrays[OUT])
    model.readout.tau.copy_(arrays[OUT_TAU])
    for bias, name in ((layer.input.bias, BIAS), (model.readout.bias, OUT_BIAS)):
        if bias is not None:
            bias.copy_(arrays[name]) if name in arrays else bias.zero_()


@torch.no_grad()
def _published(model: RSNN) -> dict[str, Tensor]:
    """The parameters of a model under the published names."""
    if not isinstance(model, RSNN) or len(model.layers) != 1:
        told = f"{len(model.layers)} layers of it" if isinstance(model, RSNN) else type(model).__name__
        raise ValueError(f"rsnn_to_pt: the model must be an RSNN of one layer, got {told}.")
    layer: Any = model.layers[0]
    dynamics, readout = layer.dynamics, model.readout
    neuron = {BRF: "brf", RF: "rf", ALIF: "alif"}.get(type(dynamics))
    if neuron is None:
        raise ValueError(f"rsnn_to_pt: the file is of BRF, RF or ALIF neurons, got {dynamics}.")
    usual = _dynamics(neuron, getattr(dynamics, "dt", 1.0))
    differ = dynamics.replace(**{field: getattr(usual, field) for field in OWN[neuron]}) != usual
    if differ or (others := sorted(layer.learned.keys() - OWN[neuron].keys())):
        raise ValueError(
            f"rsnn_to_pt: the file has no place for {dynamics if differ else others[0]}; it holds "
            f"{', '.join(OWN[neuron])} of neurons that are else {usual}."
        )
    weight = torch.cat([weight_of(layer.input), weight_of(layer.recurrent)], 1)
    arrays = {WEIGHT: weight, OUT: readout.weight, OUT_TAU: readout.tau}
    if readout.bias is not None:
        arrays |= {BIAS: layer.input.bias, OUT_BIAS: readout.bias}
    if layer.mask is not None:
        arrays[MASK] = torch.cat([torch.ones_like(weight[:, : -len(weight)]), layer.mask.to(weight)], 1)
    for field, name in OWN[neuron].items():
        value = layer.learned[field] if field in layer.learned else getattr(dynamics, field)
        arrays[name] = torch.as_tensor(value, dtype=weight.dtype).expand(len(weight))
    return {name: tensor.detach().cpu().clone() for name, tensor in arrays.items()}
