"""Processes of one training that need one another: they begin together, and none waits for one that has ended."""

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from typing import Any

from loguru import logger
from torch import distributed

from sdn.runs.cli import said, shortened

__all__ = ["Lost", "check_launched", "meet", "needing_others"]

PATIENCE = 1800.0
"""Seconds that a process waits for the others to begin; PyTorch's limit for what they exchange is the same."""
CONNECTS = 20.0
"""Seconds until a machine that does not answer counts as gone."""
SAYS = 30.0
"""Seconds between two lines of one that waits."""
GONE = re.compile(r"gloo|NCCL|c10d|Connection (closed|reset)|Broken pipe|Socket Timeout", re.I)
"""What the errors of an exchange say, whose other side is gone."""
LAUNCHED = ("MASTER_ADDR", "SLURM_NTASKS", "LSB_JOBID", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
"""Variables of the environment by which launchers for several machines are known."""
FAILED = "failed"
"""Key of the store under which the first process that fails says why."""


class Lost(ConnectionError):
    """Another process of this training has ended, so that this one cannot go on."""


def check_launched(devices: Any, nodes: Any) -> None:
    """Refuse a training whose other processes nobody has started, or other numbers of them than it was told.

    Args:
        devices: ``trainer.devices``; what is not a number is not looked at.
        nodes: ``trainer.num_nodes``.

    Raises:
        ValueError: it would wait for ever, or each process would train alone.
    """
    if not (isinstance(devices, int) and isinstance(nodes, int)):
        return
    if nodes > 1 and not any(name in os.environ for name in LAUNCHED):
        raise ValueError(
            f"trainer.num_nodes={nodes} needs the command on each of {nodes} machines, and this one was started alone; "
            f"use torchrun --nnodes={nodes} or srun there, or trainer.num_nodes=1."
        )
    here = os.environ.get("LOCAL_WORLD_SIZE", "")
    if "TORCHELASTIC_RUN_ID" in os.environ and here.isdigit() and 0 < devices != int(here):
        raise ValueError(
            f"torchrun has started {here} processes on this machine, and trainer.devices is {devices}; set "
            f"trainer.devices={here} and trainer.num_nodes={max(1, _world() // int(here))}."
        )
    if "TORCHELASTIC_RUN_ID" in os.environ and devices > 0 and devices * nodes != _world():
        raise ValueError(
            f"torchrun has started {_world()} processes, and trainer.devices={devices} on trainer.num_nodes={nodes} "
            f"are {devices * nodes}; set them to --nproc_per_node and --nnodes of torchrun."
        )


@contextlib.contextmanager
def needing_others(advice: Callable[[], str] = str) -> Iterator[None]:
    """Around what several processes do together: the others of one that fails end too, with its reason.

    Under ``torchrun`` the reason reaches them; elsewhere they see that the connection is closed. Alone nothing changes.

    Args:
        advice: gives how to go on.

    Raises:
        Lost: another process has ended.
    """
    try:
        yield
    except Lost:
        raise
    except BaseException as error:
        if _world() == 1 and not (distributed.is_available() and distributed.is_initialized()):
            raise
        if not _is_gone(error):
            _tell(said(error) or str(error) or type(error).__name__)
            raise
        way = advice() or "start all of them again"
        raise Lost(f"{_reason()}; {way}, on every machine.") from None


def meet(patience: float = PATIENCE) -> None:
    """Wait until every process that ``torchrun`` has started comes here; elsewhere nothing happens.

    PyTorch would wait for half an hour, silently, for one that has ended with an error before.

    Args:
        patience: seconds.

    Raises:
        Lost: one has failed, or has not come in time.
    """
    store = _store()
    if store is None:
        return
    store.set(_here(int(os.environ["RANK"])), socket.gethostname())
    started = said_at = time.monotonic()
    while missing := [rank for rank in range(_world()) if not store.check([_here(rank)])]:
        if store.check([FAILED]):
            raise Lost(f"{_reason()}; mend that, and start all of them again.")
        waited = time.monotonic() - started
        if waited > patience:
            raise Lost(f"{_named(missing)} did not begin within {patience:g} s; look there, and start all again.")
        if time.monotonic() - said_at > SAYS:
            said_at = time.monotonic()
            logger.info(f"waiting for {_named(missing)}, for {waited:.0f} s by now")
        time.sleep(0.1)


def _is_gone(error: BaseException | None) -> bool:
    """Whether an error, or what it came of, is that of an exchange whose other side is gone."""
    while error is not None:
        if isinstance(error, distributed.DistError):
            return True
        if isinstance(error, RuntimeError) and GONE.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _reason() -> str:
    """Which process has ended, as far as this one can know."""
    with contextlib.suppress(RuntimeError):  # the store ends with the torchrun of the first machine
        if (store := _store()) is not None and store.check([FAILED]):
            return str(store.get(FAILED).decode(errors="replace"))
    return "another process of this training has ended, or its machine cannot be reached; its own output says why"


def _tell(reason: str) -> None:
    """Leave the reason for the others, if none has left one."""
    with contextlib.suppress(RuntimeError):
        if (store := _store()) is not None and not store.check([FAILED]):
            who = f"process {os.environ['RANK']} on {socket.gethostname()} has ended"
            store.set(FAILED, f"{who}: {shortened(' '.join(reason.split())).rstrip('.')}")


def _store() -> Any:
    """The store of the torchrun of the first machine, which all of its processes can reach; None elsewhere."""
    if _world() == 1 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return _connected(*place, f"sdn/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}")


@cache
def _connected(address: str, port: int, prefix: str) -> Any:
    """The store at an address; it is kept, since a new connection to one that has ended takes its time to fail."""
    stores: Any = distributed  # whose types leave them out
    options = {"is_master": False, "wait_for_workers": False, "timeout": timedelta(seconds=CONNECTS)}
    return stores.PrefixStore(prefix, stores.TCPStore(address, port, **options))


def _world() -> int:
    """How many processes the launcher has started."""
    text = os.environ.get("WORLD_SIZE", "1")
    return int(text) if text.isdecimal() else 1


def _here(rank: int) -> str:
    return f"here/{rank}"


def _named(ranks: list[int]) -> str:
    return f"process{'es' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))} of {_world()}"
