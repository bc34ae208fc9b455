"""Trajectories of a neuron in a file: saved with all their facts, loaded with all checks."""

import dataclasses
import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdn.dynamics.base import Dynamics, Trajectory, check_dynamics, simulate
from sdn.runs.files import versions
from sdn.runs.tensor_files import Damaged, digest, load_tensors, save_tensors
from sdn.surrogate.currents import FAMILIES

__all__ = [
    "ROWS_AT_ONCE", "TENSORS", "TrajectoryFile", "drawn_values", "load_trajectories", "refuse_existing",
    "save_trajectories", "trajectory_file_name",
]  # fmt: skip

FORMAT = "sdn-trajectories"
FORMAT_VERSION = 1
ROWS_AT_ONCE = 2048
TENSORS = {"input": torch.float32, "mem": torch.float32, "spike": torch.bool}


class TrajectoryFile(NamedTuple):
    """A trajectory file, mapped or in memory: ``input``, ``mem`` (N, L) float32, ``spike`` (N, L) bool, ``facts``."""

    input: Tensor
    mem: Tensor
    spike: Tensor
    facts: dict[str, Any]
    values: Mapping[str, Tensor] = {}
    """Fields of the neuron that are others in each row, (N,) float64."""

    @property
    def dynamics(self) -> Dynamics:
        """The neuron that was simulated; where its fields differ from row to row, the one it was made of."""
        return Dynamics.from_facts(self.facts["dynamics"])

    @property
    def neurons(self) -> Dynamics:
        """The neurons of all rows, as the channels of one layer."""
        return self.dynamics.replace(**self.values) if self.values else self.dynamics

    @property
    def conditions(self) -> Tensor | None:
        """The fields that differ, (c, N) float32; None where there are none."""
        return torch.stack([*self.values.values()]).float() if self.values else None

    def rows(self, start: int, stop: int) -> "TrajectoryFile":
        """The same file with rows start..stop only; nothing is copied."""
        some = slice(start, stop)
        values = {name: value[some] for name, value in self.values.items()}
        return TrajectoryFile(self.input[some], self.mem[some], self.spike[some], self.facts, values)


def drawn_values(over: Mapping[str, Sequence[float]], samples: int, seed: int) -> dict[str, Tensor]:
    """Fields that differ from row to row: uniform between their bounds, float64 (samples,); a function of the seed."""
    generator = torch.Generator().manual_seed(seed ^ 0x5EED)
    return {
        name: torch.empty(samples, dtype=torch.float64).uniform_(low, high, generator=generator)
        for name, (low, high) in over.items()
    }


def trajectory_file_name(
    dynamics: Dynamics,
    samples: int,
    length: int,
    mean: float,
    std: float,
    name: str = "training",
    family: str = "normal",
    over: Mapping[str, Sequence[float]] | None = None,
) -> str:
    """The published file name for the published LIF, ending in ``-tau_<decay>``; other neurons end in their own name.

    Fields off their defaults are named, so that different neurons have different files. No program parses these names.
    """
    law = f"N({float(mean)},{float(std)})" if family == "normal" else f"{family}({float(std)})"
    stem = f"{name}-mem-T{length}-{law}-{samples}"
    facts = dynamics.facts()
    is_lif = facts.pop("name") == "LIF"
    head = f"tau_{float(facts.pop('decay'))}" if is_lif else ""
    default = {f.name: f.default for f in dataclasses.fields(dynamics)}  # type: ignore[arg-type]
    off = {k.replace("_", ""): v for k, v in facts.items() if v != default[k]}
    words = [f"{k}_{low}_{high}" for k, (low, high) in (over or {}).items()]
    words += [f"{k}_{v if isinstance(v, str) else float(v)}" for k, v in off.items()]
    return "-".join(w for w in (stem, head, *words, "" if is_lif else type(dynamics).__name__.lower()) if w) + ".pt"


def save_trajectories(
    path: str | os.PathLike[str],
    trajectory: Trajectory,
    dynamics: Dynamics,
    *,
    mean: float,
    std: float,
    seed: int,
    name: str = "training",
    force: bool = False,
    family: str = "normal",
    over: Mapping[str, Sequence[float]] | None = None,
) -> TrajectoryFile:
    """Write trajectories with every fact needed to make them again, whole or not at all.

    Args:
        path: the file.
        trajectory: from `generate`.
        dynamics: what `generate` was given.
        mean: what `generate` was given.
        std: what `generate` was given.
        seed: what `generate` was given.
        family: what `generate` was given.
        over: what `generate` was given.
        name: the split's name.
        force: replace an existing file.

    Raises:
        FileExistsError: the file exists and ``force`` is not set.
        OSError: it could not be written; an older file is untouched.
    """
    check_dynamics("save_trajectories", dynamics)
    path = Path(path)
    refuse_existing(path, force)
    samples, length = trajectory.input.shape
    facts = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": name,
        "dynamics": dynamics.facts(),
        "distribution": {"family": family, "mean": float(mean), "std": float(std)},
        "seed": int(seed),
        "samples": samples,
        "length": length,
        "spike_rate": int(trajectory.spike.count_nonzero()) / trajectory.spike.numel(),
        "versions": versions(),
        **({"over": {field: [float(low), float(high)] for field, (low, high) in over.items()}} if over else {}),
    }
    content = {"input": trajectory.input, "mem": trajectory.mem, "spike": trajectory.spike, "facts": facts}
    facts["digest"] = _digest(content)
    save_tensors(path, content)
    return TrajectoryFile(trajectory.input, trajectory.mem, trajectory.spike, facts, _values(facts))


def refuse_existing(path: Path, force: bool) -> None:
    """Raise where a file exists and may not be replaced."""
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists; use --force (force=True) to replace it, or another root or name.")


def load_trajectories(path: str | os.PathLike[str], *, check: bool = True) -> TrajectoryFile:
    """Map a trajectory file into memory, after checking that it is what it says.

    Args:
        path: a file from `save_trajectories`.
        check: also look for values that are not finite, simulate 16 rows again, and compare with the file's digest.

    Returns:
        TrajectoryFile whose tensors are mapped, not read: training on it takes bounded memory.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged, foreign, of wrong keys, dtypes or shapes, not finite, rows that the neuron named
            in the file does not produce, or another digest than that of its content.

    Warns:
        UserWarning: an older file, which has no digest.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the path, or write one with `python generate.py FOLDER`.")
    again = "make it again with `python generate.py ... --force`"
    try:
        content = load_tensors(path, mmap=True)
    except Damaged as error:
        raise ValueError(f"{path}: not a readable trajectory file ({error}), truncated or foreign; {again}.") from None
    problem = _problem(content) or (_wrong_values(content) if check else None)
    if problem:
        raise ValueError(f"{path}: {problem}; {again}.")
    if "digest" not in content["facts"]:
        warnings.warn(
            f"{path}: an older file without a digest: damage that its neuron allows is not seen; {again} to be sure.",
            stacklevel=2,
        )
    elif check and content["facts"]["digest"] != _digest(content):
        raise ValueError(f"{path}: its numbers or facts are not those that it was written with (its digest); {again}.")
    return TrajectoryFile(**content, values=_values(content["facts"]))


def _values(facts: dict[str, Any]) -> dict[str, Tensor]:
    return drawn_values(facts.get("over", {}), facts["samples"], facts["seed"])


def _digest(content: dict[str, Any]) -> str:
    """Of the tensors and of all facts but the digest."""
    facts = {name: value for name, value in content["facts"].items() if name != "digest"}
    return digest({name: content[name] for name in TENSORS}, json.dumps(facts, sort_keys=True))


def _problem(content: Any) -> str | None:
    """What is wrong with the form of the content, or None."""
    expected = {*TENSORS, "facts"}
    if not isinstance(content, dict) or set(content) != expected:
        found = str(sorted(map(str, content)))[:80] if isinstance(content, dict) else type(content).__name__
        return f"expected the keys {sorted(expected)}, found {found}"
    facts = content["facts"]
    if not isinstance(facts, dict) or (facts.get("format"), facts.get("format_version")) != (FORMAT, FORMAT_VERSION):
        return f"the facts are not those of {FORMAT} version {FORMAT_VERSION}"
    shape = (facts.get("samples"), facts.get("length"))
    seed = facts.get("seed")
    if not all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n < 2**63 for n in shape) or not (
        isinstance(seed, int) and not isinstance(seed, bool)
    ):
        return f"samples, length and seed of the facts are {', '.join(str(n)[:20] for n in (*shape, seed))}"
    normal = facts.get("distribution")
    normal = normal if isinstance(normal, dict) else {}
    numbers = [normal.get("mean"), normal.get("std")]
    if [isinstance(n, float) and math.isfinite(n) for n in numbers] != [True, True]:
        return f"the distribution of the facts is {str(normal)[:80]}, it needs a finite mean and std"
    if normal.get("family") not in (*FAMILIES, "mixture"):
        return f"the family of its currents is {str(normal.get('family'))[:40]!r}, which is none of {[*FAMILIES]}"
    try:
        json.dumps(facts)
    except (TypeError, ValueError) as error:
        return f"its facts are no plain values ({error})"
    for key, dtype in TENSORS.items():
        value = content[key]
        if not isinstance(value, Tensor) or value.dtype != dtype or tuple(value.shape) != shape:
            is_tensor = isinstance(value, Tensor)
            found = f"{value.dtype} {tuple(value.shape)}" if is_tensor else type(value).__name__
            return f"{key} should be {dtype} {shape}, is {found}"
        if value.is_meta or value.layout != torch.strided:
            return f"{key} should hold plain numbers, is a {'meta' if value.is_meta else value.layout} tensor"
        if not value.is_contiguous():
            return f"{key} is not contiguous"
    try:
        dynamics = Dynamics.from_facts(facts["dynamics"])
        dynamics.replace(**drawn_values(facts.get("over", {}), 2, 0))
    except (KeyError, AttributeError, TypeError, ValueError, ArithmeticError) as error:
        return f"its neuron cannot be made again ({' '.join(str(error).split())[:160]})"
    if any(isinstance(v, list) for v in facts["dynamics"].values()):
        return f"its neuron has values per channel ({dynamics})"
    return None


def _wrong_values(content: dict[str, Any]) -> str | None:
    """What is wrong with the numbers, or None: every row for finite values and its own spikes, 16 by simulation."""
    whole = TrajectoryFile(**content, values=_values(content["facts"]))
    for start in range(0, len(content["input"]), ROWS_AT_ONCE):
        part = whole.rows(start, start + ROWS_AT_ONCE)
        for key, block in (("input", part.input), ("mem", part.mem)):
            if not torch.isfinite(block).all():
                return f"{key} has values that are NaN or infinite"
        neurons, input, mem = part.neurons, part.input.T, part.mem.T
        near = neurons.distance(mem, input).abs() <= 1e-4 * neurons.threshold
        wrong = (neurons.fires(mem, input) != part.spike.T) & ~near
        if wrong.any():
            return f"row {start + int(wrong.any(0).int().argmax())} has spikes that its mem and input do not give"
    rows = sorted(set(torch.linspace(0, len(whole.input) - 1, 16).long().tolist()))
    neurons = whole.dynamics.replace(**{name: value[rows] for name, value in whole.values.items()})
    input = whole.input[rows].T.contiguous()
    again = simulate(neurons, input.unsqueeze(0))
    mem, spike = again.mem[0], again.spike[0] > 0
    scale = mem.abs().amax().clamp_min(float(torch.as_tensor(neurons.threshold).max()))
    near = (neurons.distance(mem, input).abs() <= 1e-4 * scale).T
    flipped = whole.spike[rows] != spike.T
    differs = flipped | ((whole.mem[rows] - mem.T).abs() > 1e-4 * scale)
    for i in differs.any(1).nonzero().flatten().tolist():
        first = int(differs[i].int().argmax())
        if not (flipped[i, first] and near[i, first]):  # another machine may round a spike at the threshold differently
            return f"row {rows[i]} differs from step {first} on from what {whole.dynamics} does with its input"
    return None
