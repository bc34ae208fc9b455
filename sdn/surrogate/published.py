"""The published surrogate network, read out of its TorchScript archive of which nothing is executed."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from sdn.dynamics.base import Dynamics
from sdn.dynamics.lif import LIF
from sdn.runs.files import check_regular
from sdn.surrogate.artifact import Artifact, save_artifact
from sdn.surrogate.fidelity import evaluate
from sdn.surrogate.network import ReducedSDN, of_weights
from sdn.surrogate.torchscript import LARGEST, named_tensors
from sdn.surrogate.trajectories import generate

__all__ = ["import_published", "of_published", "read_published"]

NEURON = LIF(0.125)
"""What the published network stands for, under currents from N(0, 1)."""
MODULES = {"conv1": "spatial.0", "conv2": "feature.0", "conv3": "decoder"}
"""Their names and ours; each has a weight and a bias."""
NAMES = {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in MODULES.items() for kind in ("weight", "bias")}


def import_published(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dynamics: Dynamics = NEURON,
    samples: int = 2000,
    length: int = 1024,
    seed: int = 20_240_829,
) -> Artifact:
    """Make an artifact of a published archive, with its scores on fresh currents from N(0, 1).

    Its facts say where it came from: ``imported`` has the name of the file, its bytes and its sha256.

    Args:
        path: as in `read_published`.
        out: artifact to write, usually named ``*.safetensors``.
        dynamics: the neuron that the network was trained to stand for.
        samples, length, seed: of the currents that it is scored on, (samples, length).

    Returns:
        The artifact as it was written; its scores are ``facts["metrics"]["test"]``.

    Raises:
        FileNotFoundError, OSError, ValueError: as `read_published`. Also a ValueError where `out` is `path`, or where
            the network gets no more steps of this neuron right than ``mem = 0`` does.
    """
    path = Path(path)
    content = _content(path)
    if Path(out).resolve() == path.resolve():
        raise ValueError(f"{path}: the artifact {out} would replace the archive it is made of; give another `out`.")
    network = _network(path, content)
    found = evaluate(network, generate(dynamics, samples, length, 0.0, 1.0, seed), dynamics)
    if found.agreement <= found.trivial_agreement:
        raise ValueError(
            f"{path}: gets {found.agreement:.4%} of the steps of {dynamics} right, where mem = 0 gets "
            f"{found.trivial_agreement:.4%}; give the `dynamics` that it was trained for."
        )
    source = {"file": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return save_artifact(
        out, network, dynamics, {"test": asdict(found)}, distribution={"family": "normal", "mean": 0.0, "std": 1.0},
        imported=source, seeds={"test": seed}, samples={"test": samples},
    )  # fmt: skip


def read_published(path: str | os.PathLike[str]) -> ReducedSDN:
    """The published network, from a TorchScript archive like ``mem_pred_d8k8_c3(relu(c2(c1(x))+c1(x)))_125.pkl``.

    The archive holds the modules conv1 (C, 1, K), conv2 (C, C, 1) and conv3 (1, C, 1), each with a bias, in float32.
    Published are C = K = 8, 153 numbers. Its code is neither run nor looked at, see `named_tensors`: whether it says
    what `ReducedSDN` computes is not known here. `import_published` measures what comes of it.

    Args:
        path: a file of ``torch.jit.save``.

    Returns:
        ReducedSDN in float32 on the CPU, frozen, in eval mode.

    Raises:
        FileNotFoundError: no such file.
        OSError: it cannot be read, or is a pipe or a device.
        ValueError: no TorchScript, damaged, too large, or of another network.

    Source: Shen et al., AAAI 2025 (arXiv 2408.14909) and the archive in its repository.
    """
    path = Path(path)
    return _network(path, _content(path))


def of_published(weights: Mapping[str, Tensor]) -> ReducedSDN:
    """The network of published weights by their names there, e.g. from ``torch.load(path, weights_only=True)``.

    Args:
        weights: conv1.weight (C, 1, K), conv1.bias (C,), conv2.weight (C, C, 1), conv2.bias (C,), conv3.weight
            (1, C, 1) and conv3.bias (1,), float32 and finite. They are copied.

    Returns:
        As `read_published`.

    Raises:
        ValueError: other names, shapes or dtypes, or weights that are NaN or infinite.
    """
    if set(weights) != set(NAMES):
        there = ", ".join(sorted(weights)[:12]) or "no tensors with names, as a frozen module does"
        raise ValueError(f"holds {there}; the published network has {', '.join(NAMES)}: give that one, not frozen.")
    shape = tuple(weights["conv1.weight"].shape)
    if len(shape) != 3 or shape[1] != 1:
        raise ValueError(f"conv1.weight has the shape {shape}, expected (C, 1, K); give a network of one current.")
    c, _, k = shape
    shapes: list[tuple[int, ...]] = [shape, (c,), (c, c, 1), (c,), (1, c, 1), (1,)]
    for name, expected in zip(NAMES, shapes, strict=True):
        _check(name, weights[name], expected)
    ours = {NAMES[name]: value for name, value in weights.items()}
    return of_weights(ReducedSDN, {"d_model": c, "kernel_size": k, "n_layers": 1}, ours)


def _check(name: str, value: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(value.shape) != expected:
        beside = f"beside this conv1.weight it must have {expected}"
        raise ValueError(f"{name} has the shape {tuple(value.shape)}, {beside}; give the weights of one network.")
    if value.dtype != torch.float32:
        raise ValueError(f"{name} holds {value.dtype}, the published network torch.float32; cast it with .float().")
    if bad := int((~torch.isfinite(value)).sum()):
        raise ValueError(f"{name} is NaN or infinite in {bad} of {value.numel()} places; get the file again.")


def _content(path: Path) -> bytes:
    """All bytes of the file, which are few, so that what is read is what is digested."""
    check_regular(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the archive of a published network.")
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{path}: has {size} bytes, at most {LARGEST} are read; the published archive has 12 kB.")
    return path.read_bytes()


def _network(path: Path, content: bytes) -> ReducedSDN:
    try:
        return of_published(named_tensors(content))
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).rstrip('.')}.") from None
