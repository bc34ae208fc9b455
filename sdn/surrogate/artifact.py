"""An artifact: the small network that ships, with all facts about it, in a file that executes nothing."""

import functools
import json
import os
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sdn.compiler.programs import program_of
from sdn.compiler.sources import digest_of
from sdn.dynamics.base import Dynamics, check_dynamics
from sdn.runs.files import versions, writing
from sdn.runs.shortage import shortage
from sdn.runs.tensor_files import digest
from sdn.surrogate.network import ReducedSDN, of_weights
from sdn.surrogate.seams import ReducedSeamSDN

__all__ = ["Artifact", "copy_artifact", "load_artifact", "save_artifact", "shipped_artifacts", "step_of"]

FORMAT = "sdn-reduced"
SEAMS = "sdn-seams"
FORMAT_VERSION = "2"
READ = ("1", FORMAT_VERSION)
"""Version 1 has no digest."""
SIZES = ("d_model", "kernel_size", "n_layers"), ("states", "conditions", "hidden", "chunk", "width")
"""What a network is made of, a pointwise one and a seam network."""
Network = ReducedSDN | ReducedSeamSDN
LARGEST = 2**26
"""Bytes of an artifact; the shipped ones have 4 kB."""
SHIPPED = Path(__file__).parent / "artifacts"


@dataclass(frozen=True, eq=False)
class Artifact:
    """A reduced network with the facts that say what it stands for.

    The network is pointwise (`ReducedSDN`: the membrane of every step from the currents before it), or a seam network
    (`ReducedSeamSDN`: the state every few steps).

    ``facts`` holds ``dynamics`` (see `Dynamics.facts`), ``distribution`` of the training currents, ``metrics`` measured
    on test data, ``versions``, and what else the maker wrote down (seed, command). A network that stands for many
    neurons also has ``over``: its fields and the bounds they were trained between.
    """

    network: Network
    facts: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    digest: str = ""
    """The sha256 of format, facts and tensors, by which one artifact is told from another."""
    weights: str = ""
    """The sha256 of the tensors as they were read."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Artifact):
            return NotImplemented
        return self is other or ("" != self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.digest) if self.digest else id(self)

    def __repr__(self) -> str:
        made_for = self.dynamics if "dynamics" in self.facts else "no dynamics"
        return f"Artifact({made_for}, sha256 {self.digest[:12] or 'unknown'})"

    @functools.cached_property
    def tensors(self) -> list[Tensor]:
        """The parameters of the network."""
        return [*self.network.parameters()]

    def as_it_is(self) -> "Artifact":
        """This artifact; if its network was changed since it was read, one that equals no other."""
        if not self.weights or self.weights == digest(tensors_of(self.network)):
            return self
        return replace(self, path=None, digest="", weights="")

    @property
    def dynamics(self) -> Dynamics:
        """The neuron this network was trained to stand for."""
        return Dynamics.from_facts(self.facts["dynamics"])

    @property
    def over(self) -> dict[str, tuple[float, float]]:
        """Fields whose values the network is told, and the bounds that it was trained between."""
        return {name: (low, high) for name, (low, high) in self.facts.get("over", {}).items()}

    @property
    def is_pointwise(self) -> bool:
        """Whether it predicts the membrane of every step, not the state at seams."""
        return isinstance(self.network, ReducedSDN)


def save_artifact(
    path: str | os.PathLike[str],
    reduced: Network,
    dynamics: Dynamics,
    metrics: Mapping[str, Any] | None = None,
    **facts: Any,
) -> Artifact:
    """Write a reduced network as safetensors (float32) with its facts and a digest as metadata, whole or not at all.

    Args:
        path: file to write, usually named ``*.safetensors``.
        reduced: from `reduce`.
        dynamics: the neuron whose `mem` it predicts; without its facts an artifact cannot be used.
        metrics: what was measured, plain values.
        facts: further plain values, e.g. ``distribution``, ``seed``, ``command``.

    Raises:
        ValueError: weights that are not finite.
    """
    check_dynamics("save_artifact", dynamics)
    tensors = tensors_of(reduced)
    if not all(torch.isfinite(v).all() for v in tensors.values()):
        raise ValueError(f"{path}: the reduced SDN has weights that are NaN or infinite; it was not saved.")
    sizes = {name: getattr(reduced, name) for name in SIZES[isinstance(reduced, ReducedSeamSDN)]}
    step = step_of(dynamics)
    known = {
        **({"step": step} if step else {}),
        "dynamics": dynamics.facts(),
        "metrics": dict(metrics or {}),
        "versions": versions(),
        **facts,
        **sizes,
    }
    return _write(path, tensors, known, SEAMS if isinstance(reduced, ReducedSeamSDN) else FORMAT)


def step_of(dynamics: Dynamics) -> str:
    """Twelve digits that stand for the step of a neuron of your own; empty for those of `sdn`, and where none can be.

    A class that was written again, as in a notebook, has the same name and fields.
    """
    if type(dynamics).__module__.startswith("sdn."):
        return ""
    try:
        return digest_of(program_of(dynamics).step.text)
    except NotImplementedError:
        return ""


def copy_artifact(path: str | os.PathLike[str], artifact: Artifact) -> Artifact:
    """Write an artifact as it was read, whatever became of its file; returns the copy, which equals it.

    A copy of a file of the first version gets the digest that it had not.
    """
    return _write(path, tensors_of(artifact.network), artifact.facts, FORMAT if artifact.is_pointwise else SEAMS)


def tensors_of(network: Network) -> dict[str, Tensor]:
    """Its weights as they are written: float32, on the CPU."""
    return {k: v.detach().to("cpu", torch.float32).contiguous() for k, v in network.state_dict().items()}


def _write(path: str | os.PathLike[str], tensors: dict[str, Tensor], facts: dict[str, Any], kind: str) -> Artifact:
    facts_text = json.dumps(facts)
    header = {"format": kind, "format_version": FORMAT_VERSION, "facts": facts_text}
    header["digest"] = digest(tensors, kind, FORMAT_VERSION, facts_text)
    with writing(path) as partial:
        save_file(tensors, partial, metadata=header)
    return load_artifact(path)


def load_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Read an artifact; only tensors and JSON are parsed, nothing is executed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not safetensors, not one of ours, changed since it was written, or tensors that do not fit its own
            facts.

    Warns:
        UserWarning: a file of the first version, which has no digest of its tensors; once for each.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such artifact; `sdn train --save exp` leaves one as exp/artifact.safetensors."
        )
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            way = f"python -m sdn import {shlex.quote(str(path))} {shlex.quote(path.stem)}.safetensors"
            raise ValueError(
                f"{path}: a zip archive, as the published network is; make an artifact of it with `{way}`."
            )
    header, tensors = _read(path)
    version, kind = str(header.get("format_version")), str(header.get("format"))
    if kind not in (FORMAT, SEAMS) or version not in (READ if kind == FORMAT else (FORMAT_VERSION,)):
        found = f"{header.get('format')!r} version {version!r}"
        known = f"{FORMAT!r} version '{FORMAT_VERSION}' or '1', or {SEAMS!r} version '{FORMAT_VERSION}'"
        raise ValueError(f"{path}: expected format {known}, found {found}.")
    if not all(v.dtype == torch.float32 and torch.isfinite(v).all() for v in tensors.values()):
        raise ValueError(f"{path}: has weights that are NaN or infinite, or not float32; make the artifact again.")
    try:
        text = header["facts"]
        facts = json.loads(text)
        sizes = {name: facts[name] for name in SIZES[kind == SEAMS]}
        made: type[Network] = ReducedSeamSDN if kind == SEAMS else ReducedSDN
        network = of_weights(made, sizes, tensors)
        _check_facts(network, facts)
    except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        if str(error).startswith("no dynamics is named '"):
            raise ValueError(f"{path}: {error}") from None
        reason = " ".join(str(error).split())[:160]
        raise ValueError(
            f"{path}: facts and tensors do not fit together ({reason}); make the artifact again."
        ) from None
    found = digest(tensors, kind, version, text)
    if version == FORMAT_VERSION and header.get("digest") != found:
        raise ValueError(
            f"{path}: its facts and tensors are not those that it was written with (digest {found[:12]}, it says "
            f"{str(header.get('digest'))[:12]}); copy it again, or make it again."
        )
    if version != FORMAT_VERSION and path not in _SAID:
        _SAID.add(path)
        warnings.warn(
            f"{path}: an artifact of the first version, which has no digest: damage to its numbers cannot be seen; "
            "save_artifact writes one.",
            stacklevel=2,
        )
    return Artifact(network, facts, path, found, digest(tensors))


def _check_facts(network: Network, facts: dict[str, Any]) -> None:
    """Whether the facts are those of such a network."""
    dynamics = Dynamics.from_facts(facts["dynamics"])
    if isinstance(network, ReducedSeamSDN):
        over = facts.get("over", {})
        if not isinstance(over, dict):
            raise TypeError(f"over is a {type(over).__name__}, not fields with their bounds")
        dynamics.replace(**{name: float(low) for name, (low, _) in over.items()})
        dynamics.replace(**{name: float(high) for name, (_, high) in over.items()})
        if (len(dynamics.State._fields), len(over)) != (network.states, network.conditions):
            raise ValueError(f"{dynamics} over {over} has another number of states or of conditions")


_SAID: set[Path] = set()


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file, which checks that its tensors are as large as its header says."""
    if path.stat().st_size > LARGEST:
        raise ValueError(
            f"{path}: has {path.stat().st_size} bytes, an artifact less than {LARGEST}; give another file."
        )
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        if shortage(error) is not None:  # the file may be whole
            raise
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"{path}: not a readable safetensors file ({reason}); make the artifact again.") from None


def shipped_artifacts() -> list[Path]:
    """The artifacts that come with the package, sorted by name."""
    return sorted(SHIPPED.glob("*.safetensors"))
