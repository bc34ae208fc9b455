"""Which artifact stands for a neuron: its own, a shipped one, and what is said where it fits only in part."""

import functools
import os
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from sdn.dynamics.base import Dynamics
from sdn.surrogate.artifact import Artifact, load_artifact, shipped_artifacts, step_of

__all__ = [
    "HOW", "read", "same", "shipped_for", "stands_for", "unit", "warn_changed", "warn_outside", "with_fields",
]  # fmt: skip

HOW = (
    "train one (`python generate.py`, `python train.py`; sdn.fit for a neuron of your own) and pass its "
    "artifact.safetensors as Surrogate(path), on the command line as "
    "'model.solver={_target_: sdn.Surrogate, artifact: PATH}'."
)


def unit(dynamics: Dynamics) -> Dynamics:
    """The neuron at threshold 1, where its threshold is a scale."""
    return dynamics.with_known({"threshold": 1.0}) if dynamics.scales_with_threshold else dynamics


def with_fields(made_for: Dynamics, dynamics: Dynamics, fields: Sequence[str]) -> Dynamics:
    """A neuron with some fields of another one."""
    if not fields or type(dynamics) is not type(made_for):
        return dynamics
    return dynamics.with_known({name: getattr(made_for, name) for name in fields})


def stands_for(artifact: Artifact, dynamics: Dynamics) -> bool:
    """Whether an artifact is of this neuron, whatever its threshold where that is a scale, and what it is told."""
    made_for = artifact.dynamics
    return unit(made_for) == with_fields(unit(made_for), unit(dynamics), [*artifact.over])


def same(one: Dynamics, other: Dynamics) -> bool:
    """Whether two neurons are equal; of neurons of plain numbers without their facts, which a step has no time for."""
    values = (*vars(one).values(), *vars(other).values())
    if type(one) is not type(other) or any(isinstance(value, Tensor) for value in values):
        return one == other
    return vars(one) == vars(other)


_SAID: set[tuple[str, str]] = set()
"""Digests of artifacts, and their fields that were seen outside of their bounds in a run."""


def warn_outside(dynamics: Dynamics, artifact: Artifact, once: bool = False) -> None:
    """Say where a field lies outside of the bounds that the network was trained and measured between.

    ``once`` for each field of an artifact: a learned one has another value in every step.
    """
    for name, (low, high) in artifact.over.items():
        value = torch.as_tensor(getattr(dynamics, name)).detach()
        if value.is_meta or not value.numel():
            continue
        least, most, little = float(value.min()), float(value.max()), 1e-6 * (high - low)
        is_outside = least < low - little or most > high + little
        if is_outside and not (once and (artifact.digest, name) in _SAID):
            if once:
                _SAID.add((artifact.digest, name))
            warnings.warn(
                f"Surrogate: {name} goes from {least:g} to {most:g}, the network was trained and measured from {low:g} "
                f"to {high:g}; check it there with sdn.fidelity, or take more rounds.",
                stacklevel=5,
            )


def warn_changed(dynamics: Dynamics, artifact: Artifact) -> None:
    """Say where a neuron of your own has another step than when its artifact was made."""
    made, now = artifact.facts.get("step"), step_of(dynamics)
    if made and now and made != now:
        name = type(dynamics).__name__
        warnings.warn(
            f"Surrogate: the step of {name} is another one than when the artifact was made ({made}, now {now}); train "
            "it anew, or check it with sdn.fidelity.",
            stacklevel=5,
        )


def read(path: str | os.PathLike[str]) -> Artifact:
    """The artifact of a path, on the CPU whatever the default device is."""
    with torch.device("cpu"):
        return load_artifact(path)


_shipped = functools.lru_cache(maxsize=None)(read)


def shipped_for(dynamics: Dynamics, learned: tuple[str, ...] = ()) -> Artifact:
    """The shipped artifact of a neuron: one that is told what is learned, else one of this very neuron, else any."""
    known = [_shipped(path) for path in shipped_artifacts()]
    asked = {name for name in learned if not (name == "threshold" and dynamics.scales_with_threshold)}
    fitting = [
        artifact
        for artifact in known
        if asked <= {*artifact.over} and stands_for(artifact, dynamics) and _inside(dynamics, artifact)
    ]
    if fitting:
        return min(fitting, key=lambda artifact: (len(artifact.over), not artifact.is_pointwise))
    alike = [artifact for artifact in known if type(artifact.dynamics) is type(dynamics)] or known
    made = ", ".join(_named(artifact) for artifact in alike) or "none"
    what = f"{dynamics} with a learned {', '.join(sorted(asked))}" if asked else str(dynamics)
    way = f"`python generate.py DATA --over {min(asked)}=LOW:HIGH` and `python train.py` make one; " if asked else ""
    raise ValueError(f"no shipped artifact stands for {what} (shipped: {made}); {way}{HOW}")


def _named(artifact: Artifact) -> str:
    bounds = [f"{name} from {low:g} to {high:g}" for name, (low, high) in artifact.over.items()]
    return str(artifact.dynamics) + (f" with {', '.join(bounds)}" if bounds else "")


def _inside(dynamics: Dynamics, artifact: Artifact) -> bool:
    """Whether the fields that an artifact is told lie between its bounds."""
    for name, (low, high) in artifact.over.items():
        value = torch.as_tensor(getattr(dynamics, name, float("nan"))).detach()
        if value.is_meta:
            continue
        little = 1e-6 * (high - low)
        if not bool(((value >= low - little) & (value <= high + little)).all()):
            return False
    return True
