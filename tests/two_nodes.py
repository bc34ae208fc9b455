"""Two processes as torchrun starts them on two machines, as copies of this one: `test_two_nodes` reads what it prints.

Run as a script in a process of its own, since a process with threads is not to be copied.
"""

import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from forked import Child
from kill.bench import warm
from kill.check import difference, listing
from kill.jobs import run as read
from lightning.pytorch.utilities import rank_zero_only

from spikingssm.training.callbacks import StepCheckpoint

WORDS = [
    "train", "experiment=spikingssm/digits", "+tier=smoke", "model.solver=loop", "model.d_model=8", "model.d_state=4",
    "model.n_layers=1", "trainer.accelerator=cpu", "trainer.num_nodes=2", "trainer.strategy=ddp", "threads=1",
    "data.batch_size=8", "data.limit_train=48", "data.limit_eval=32", "trainer.max_epochs=3", "model.dropout=0.2",
    "checkpoint.every_n_steps=1", "run_dir=run",
]  # fmt: skip
"""Three steps an epoch, each with a checkpoint."""
LIMIT = 60.0
"""Seconds that a pair of processes may take."""


def dies(rank: int, step: int) -> None:
    """Let this process kill itself before a step, if it is the one."""
    begin = StepCheckpoint.on_train_batch_start

    def start(self: StepCheckpoint, trainer: Any, *more: Any) -> None:
        begin(self, trainer, *more)
        if (trainer.global_rank, trainer.global_step) == (rank, step):
            os.kill(os.getpid(), signal.SIGKILL)

    StepCheckpoint.on_train_batch_start = start  # type: ignore[method-assign]


def node(rank: int, port: int, folder: Path, words: list[str], victim: tuple[int, int] | None) -> Child:
    """A process of a training of two."""

    def main() -> None:
        from spikingssm.__main__ import main as command

        os.environ.update(
            RANK=str(rank), LOCAL_RANK="0", GROUP_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="1",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="none",
            TORCHELASTIC_RESTART_COUNT="0", TORCHELASTIC_USE_AGENT_STORE="True",
        )  # fmt: skip
        rank_zero_only.rank = rank
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        if victim is not None:
            dies(*victim)
        sys.argv = ["spikingssm", *words]
        command()

    return Child(main)


def pair(
    folders: list[Path], *own: list[str], words: list[str] = WORDS, victim: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Exit codes and last lines of two processes.

    Args:
        folders: in which they work; one is that of both.
        own: words of the first alone, and of the second alone.
        words: of both.
        victim: rank that is killed, and the step before which.
    """
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(0, 60))
    started = time.monotonic()
    own = own or ([], [])
    children = [node(rank, store.port, folders[rank % len(folders)], [*words, *own[rank]], victim) for rank in range(2)]
    found = [child.ended(LIMIT) for child in children]
    lines = [err.rstrip("\n").rpartition("\n")[2] for _, err in found]
    return {"codes": [code for code, _ in found], "last": lines, "seconds": round(time.monotonic() - started, 1)}


def compared(folder: Path, other: Path) -> str | None:
    """Where two run folders differ, in any bit; None where they do not."""
    if names := listing(folder / "run") ^ listing(other / "run"):
        return f"only one has {sorted(names)}"
    return difference(read(folder), read(other))


def main(home: Path, every: bool) -> None:
    """Run pair after pair, and print what came out."""
    warm()
    found: dict[str, Any] = {}
    whole, second = home / "whole", home / "second"
    found["whole"] = pair([whole])
    found["second killed"] = pair([second], victim=(1, 4))
    found["second killed"]["left"] = sorted(listing(second / "run"))
    found["resumed"] = pair([second], words=["train", "resume=run"])
    found["resumed"]["differs"] = compared(second, whole)
    if every:
        more(home, whole, found)
    print(json.dumps(found))


def more(home: Path, whole: Path, found: dict[str, Any]) -> None:
    """The other kill, mistakes, and machines without a common disk."""
    found["first killed"] = pair([home / "first"], victim=(0, 5))
    found["same command"] = pair([home / "first"], words=[*WORDS, "resume=auto"])
    found["same command"]["differs"] = compared(home / "first", whole)
    found["finished"] = pair([home / "first"], words=[*WORDS, "resume=auto"])
    found["mistake"] = pair([home / "mistake"], [], ["nope=1"])
    found["held"] = pair([whole])
    found["seeds"] = pair([home / "seeds"], [], ["seed=1"])
    disks = [home / "a", home / "b"]
    found["own disks"] = pair(disks)
    found["own disks"]["differs"] = compared(home / "a", whole)
    found["own disks"]["left"] = sorted(listing(home / "b"))
    found["not copied"] = pair(disks, words=[*WORDS, "trainer.max_epochs=4", "resume=auto"])


if __name__ == "__main__":
    if sys.argv[1] == "--dies":  # under torchrun
        dies(*map(int, sys.argv[2:4]))
        del sys.argv[1:4]
        import spikingssm.__main__

        spikingssm.__main__.command()
    else:
        main(Path(sys.argv[1]).resolve(), sys.argv[2:] == ["all"])
