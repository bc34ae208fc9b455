"""Several processes: what they tell one another, and how a large model is cut for them."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch.strategies import FSDPStrategy, Strategy
from lightning.pytorch.utilities import move_data_to_device, rank_zero_only
from torch import Tensor, distributed, nn

__all__ = [
    "ALONE", "SHARD", "Sharded", "as_strategy", "first_process", "from_first", "gathered", "leave", "shared_work",
    "total",
]  # fmt: skip

SHARD = "_fsdp_wrapped_module."
"""What sharding puts into the names of modules."""
ALONE = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
"""Arguments of a trainer that runs in this process only."""


class Sharded(FSDPStrategy):
    """FSDP that writes whole checkpoints, which load without it.

    Args:
        blocks: of the model; each is a unit: gathered, run, and cut up again. Without any the whole model is one.
    """

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        units = {type(block) for block in blocks}
        super().__init__(auto_wrap_policy=units or None, state_dict_type="full")


def first_process() -> bool:
    """Whether this process is the one that writes the run folder: rank 0 in the environment of its launcher."""
    launched: Any = rank_zero_only  # whose types leave its rank out
    return bool(launched.rank == 0)


def as_strategy(name: str | Strategy, blocks: Iterable[nn.Module]) -> str | Strategy:
    """What Lightning is given for ``trainer.strategy``.

    Args:
        name: as in the configuration: "auto", "ddp", "ddp_find_unused_parameters_true", "fsdp" (see `Sharded`), ...
        blocks: of the model that is trained, see `Sharded`.
    """
    return Sharded(blocks) if name == "fsdp" else name


def shared_work(trainer: Any, batch_size: int, threads: int, cores: int) -> str | None:
    """What a user should know of several processes, in one line; None for one process.

    Args:
        trainer: of Lightning.
        batch_size: rows that each process takes at once.
        threads: of each process.
        cores: of this machine.
    """
    if trainer.world_size == 1:
        return None
    steps = trainer.accumulate_grad_batches
    rows = trainer.world_size * batch_size * steps
    line = (
        f"{trainer.world_size} processes: a step of the optimiser sees {rows} rows, not {batch_size * steps}; for the "
        "steps of one process divide data.batch_size"
    )
    busy = trainer.num_devices * threads
    if trainer.strategy.root_device.type == "cpu" and busy > cores:
        line += (
            f". They want {busy} cores and this machine has {cores}: trainer.devices=1 is faster, or threads="
            f"{max(1, cores // trainer.num_devices)}"
        )
    return line


def gathered(value: Any) -> list[Any]:
    """A value of plain values and tensors from every process, by rank, on the CPU; just this one's without others."""
    value = move_data_to_device(value, torch.device("cpu"))
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found


def from_first(make: Callable[[], Any]) -> Any:
    """What the first process makes, for all of them: the others need not have its files."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return make()
    found = [make() if distributed.get_rank() == 0 else None]
    distributed.broadcast_object_list(found)
    return found[0]


def leave() -> None:
    """Leave the group of processes, whose threads the end of Python would cut off with words of their own."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def total(values: Tensor) -> Tensor:
    """The sum over all processes, elementwise."""
    if distributed.is_available() and distributed.is_initialized():
        values = values.clone()
        distributed.all_reduce(values)
    return values
