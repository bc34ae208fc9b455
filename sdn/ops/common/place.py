"""Where there are kernels: numba's for the CPU, Triton's for GPUs of NVIDIA, and a sentence for everything else."""

import importlib
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_kind", "check_place", "has_kernels", "kernels", "missing"]

HAS_TRITON = find_spec("triton") is not None
FOR_AMD = torch.version.hip is not None


def kernels(name: str, like: Tensor, instead: str = "use solver='loop'") -> Any:
    """The module ``sdn.ops.<name>.cpu`` or ``.gpu`` for tensors on the device of this one.

    Args:
        name: of an operator: neuron, recurrent, resonate, modes, scan.
        like: a tensor on the device.
        instead: the way out that an error names.

    Raises:
        NotImplementedError: no kernels for that device, or nothing there that compiles them.
    """
    check_place(like, name, instead)
    return importlib.import_module(f"sdn.ops.{name}.{'gpu' if like.is_cuda else 'cpu'}")


def has_kernels(like: Tensor) -> bool:
    """Whether there are kernels for tensors on the device of this one."""
    return missing(like.device.type) is None


def check_place(like: Tensor, name: str, instead: str = "use solver='loop'") -> None:
    """Refuse a device for which there are no kernels.

    Raises:
        NotImplementedError: what is missing, and what to do instead.
    """
    if lack := missing(like.device.type):
        raise NotImplementedError(f"{name}: {lack}; {instead}.")


def check_kind(current: Tensor) -> None:
    """Refuse a device or a dtype without kernels."""
    check_place(current, "the fused solver")
    if current.dtype not in (torch.float32, torch.float64):
        raise NotImplementedError(
            f"the fused kernels take float32 and float64, got {current.dtype}; a Neuron computes lower precision in "
            "float32; elsewhere use solver='loop'."
        )


def missing(device: str) -> str | None:
    """What a device lacks; nothing on the CPU, nor on the meta device, where nothing runs."""
    if device in ("cpu", "meta"):
        return None
    if device != "cuda":
        return f"there are kernels for the CPU and for GPUs of NVIDIA, none for {device}"
    if FOR_AMD:
        return "the GPU kernels are written for NVIDIA, and this torch is built for AMD (ROCm)"
    if not HAS_TRITON:
        return "the GPU kernels need the package triton, which is not installed (pip install triton, on Linux)"
    return None
