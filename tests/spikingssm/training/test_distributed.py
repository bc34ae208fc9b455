"""Two processes equal one with batches twice as large; evaluation counts every row once; one of them writes."""

import csv
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import two_processes
from hypothesis import given
from hypothesis import strategies as st

from sdn.runs.folder import load_checkpoint
from spikingssm.datasets.order import EpochSampler, shared_batches
from spikingssm.layers.block import Residual
from spikingssm.models.base import blocks_of
from spikingssm.processes.distributed import Sharded, as_strategy, gathered, shared_work, total
from spikingssm.training.fit import fit

ROOT = Path(__file__).parents[3]
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}
COMMAND = [
    "experiment=spikingssm/digits", "+tier=smoke", "model.solver=loop", "model.d_model=8", "model.d_state=4",
    "trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp", "data.batch_size=8",
]  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What one process found, what each of two did, and the folder."""
    folder = tmp_path_factory.mktemp("two")
    one = two_processes.run(folder / "one", 10, devices=1)
    command = [sys.executable, str(ROOT / "tests/two_processes.py"), str(folder)]
    two = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=ENV, timeout=300, check=False)
    assert two.returncode == 0, two.stderr
    return one, [torch.load(folder / f"rank{rank}.pt") for rank in range(2)], folder


def table(folder) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]


def test_two_processes_take_the_first_step_of_one_with_twice_the_batch(both) -> None:
    one, two, _ = both
    assert torch.equal(one["x"], torch.cat([found["x"] for found in two]))
    assert one["spikes"].keys() == two[0]["spikes"].keys()
    assert sum(spikes.sum() for spikes in one["spikes"].values()) > 20
    for name, spikes in one["spikes"].items():
        assert torch.equal(spikes, torch.cat([found["spikes"][name] for found in two])), name
    for name, gradient in one["gradients"].items():
        assert gradient.abs().max() > 0, name
        for found in two:
            torch.testing.assert_close(found["gradients"][name], gradient, rtol=0, atol=1e-10)


def test_two_processes_end_with_the_weights_and_the_results_of_one(both) -> None:
    one, two, folder = both
    for name, weight in one["weights"].items():
        assert torch.equal(two[0]["weights"][name], two[1]["weights"][name]), name
        torch.testing.assert_close(two[0]["weights"][name], weight, rtol=0, atol=1e-7)
    for found in two:
        assert found["test"]["accuracy"] == one["test"]["accuracy"]
        assert found["test"]["spike_rates"] == one["test"]["spike_rates"]
        assert found["test"]["loss"] == pytest.approx(one["test"]["loss"], abs=1e-7)
    assert len(table(folder / "one")) == 2
    for row, expected in zip(table(folder / "whole"), table(folder / "one"), strict=True):
        assert row == pytest.approx(expected, abs=1e-6)


def test_two_processes_killed_inside_an_epoch_resume_bit_for_bit(both) -> None:
    folder = both[2]
    assert table(folder / "killed") == table(folder / "not killed")
    for name in ("last", "best"):
        one, other = (load_checkpoint(folder / f / "checkpoints" / f"{name}.ckpt") for f in ("killed", "not killed"))
        assert one["place"] == other["place"]
        for key, value in one["state_dict"].items():
            assert torch.equal(value, other["state_dict"][key]), key


def test_the_command_writes_one_run_folder(tmp_path) -> None:
    command = [sys.executable, "-W", "ignore", "train.py", *COMMAND, f"run_dir={tmp_path / 'run'}"]
    done = subprocess.run(command, cwd=ROOT, env=ENV, text=True, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    log = (tmp_path / "run" / "run.log").read_text().splitlines()
    assert [line.split(" | ")[2].split(" ")[0] for line in log][1:] == [
        "digits:", "2", "epoch", f"{tmp_path}/run/summary.json",
    ]  # fmt: skip
    assert "2 processes: a step of the optimiser sees 16 rows, not 8" in log[2]
    said = [line for line in done.stderr.splitlines() if not line.startswith("sdn: compiling")]
    assert len(said) == len(log) == 5, done.stderr
    assert len(table(tmp_path / "run")) == 1
    assert table(tmp_path / "run")[0]["step"] == 4  # 64 rows, two processes, batches of 8
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["test"]["spike_rates"].keys() == {"blocks.0.layer.neuron", "blocks.1.layer.neuron"}
    assert round(64 * summary["test"]["accuracy"], 3).is_integer()


@given(
    rows=st.integers(1, 60),
    batch=st.integers(1, 9),
    ranks=st.integers(1, 4),
    epoch=st.integers(0, 3),
    skip=st.integers(0, 3),
)
def test_batches_of_all_processes_are_those_of_one(rows, batch, ranks, epoch, skip) -> None:
    numbers = torch.arange(rows) * 7
    alone = list(EpochSampler(numbers, 5, epoch, batch_size=batch * ranks, skip=skip))
    parts = [EpochSampler(numbers, 5, epoch, batch_size=batch, rank=r, ranks=ranks, skip=skip) for r in range(ranks)]
    drawn = [torch.tensor(list(part), dtype=torch.long).view(-1, batch) for part in parts]
    assert torch.cat(drawn, 1).flatten().tolist() == alone
    assert {len(part) for part in parts} == {rows // (batch * ranks) * batch}
    whole = list(EpochSampler(numbers, 5, epoch, batch_size=batch * ranks))
    assert alone == whole[skip * batch * ranks :]
    parts[0].set_epoch(epoch + 1)
    assert len(list(parts[0])) == len(parts[0])  # only the first epoch is short


@given(rows=st.integers(1, 60), batch=st.integers(1, 9), ranks=st.integers(1, 4))
def test_evaluation_takes_every_row_once_in_equally_many_batches(rows, batch, ranks) -> None:
    numbers = torch.arange(rows) * 7
    parts = [shared_batches(numbers, batch, rank, ranks) for rank in range(ranks)]
    assert len({len(part) for part in parts}) == 1
    assert all(0 < len(one) <= batch for part in parts for one in part)
    taken = [[row for one in part for row in one] for part in parts]
    if all(part == taken[0] for part in taken):
        assert taken[0] == numbers.tolist()
    else:
        assert sorted(itertools.chain(*taken)) == numbers.tolist()
    if rows % (batch * ranks) == 0:
        assert sum(map(len, taken)) == rows


def test_a_stream_is_not_cut() -> None:
    rows = two_processes.data(5, stream=True)
    rows.trainer = type("Two", (), {"global_rank": 1, "world_size": 2})()
    assert list(rows.val_dataloader().batch_sampler) == [[i] for i in range(11)]
    rows.stream = False
    assert list(rows.val_dataloader().batch_sampler) == [[1, 3, 5], [7, 9]]


def test_too_few_rows_for_all_processes_are_an_error_with_the_numbers() -> None:
    rows = two_processes.data(26)
    rows.trainer = type("Two", (), {"global_rank": 0, "world_size": 2})()
    with pytest.raises(ValueError, match=r"batches of 26 on 2 devices need 52 training rows, there are 50"):
        rows.train_dataloader()


def test_alone_there_is_nothing_to_exchange() -> None:
    assert total(torch.tensor([1, 2])).tolist() == [1, 2]
    assert gathered({"a": 1}) == [{"a": 1}]


def test_fsdp_shards_block_by_block_and_writes_whole_checkpoints(tmp_path, monkeypatch) -> None:
    module = two_processes.module()
    strategy = as_strategy("fsdp", blocks_of(module.model))
    assert isinstance(strategy, Sharded)
    policy = strategy.kwargs["auto_wrap_policy"]
    wrapped = [name for name, part in module.named_modules() if policy(part, False, 0)]
    assert wrapped == [f"model.blocks.{i}" for i in range(2)]
    assert isinstance(module.model.blocks[0], Residual)
    assert strategy._state_dict_type == "full"
    assert as_strategy("ddp", ()) == "ddp"
    module.ema = 0.9
    with pytest.raises(ValueError, match=r"optim\.ema=0\.9 does not go with trainer\.strategy=fsdp"):
        fit(module, two_processes.data(5), tmp_path, seed=0, strategy="fsdp")
    module.ema = None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"trainer\.strategy=fsdp needs GPUs and there is none"):
        fit(module, two_processes.data(5), tmp_path, seed=0, strategy="fsdp")


@pytest.mark.parametrize(
    ("devices", "threads", "cores", "says"),
    [
        (1, 8, 2, None),
        (2, 1, 2, "2 processes: a step of the optimiser sees 48 rows, not 24; for the steps of one process divide"),
        (4, 1, 2, "want 4 cores and this machine has 2: trainer.devices=1 is faster, or threads=1"),
        (2, 4, 4, "want 8 cores and this machine has 4: trainer.devices=1 is faster, or threads=2"),
    ],
)
def test_what_several_processes_change_is_said(devices, threads, cores, says) -> None:
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    loop = SimpleNamespace(world_size=devices, num_devices=devices, accumulate_grad_batches=3, strategy=strategy)
    told = shared_work(loop, 8, threads, cores)
    assert told is None if says is None else says in told
    if devices == 2 and cores == 2:
        assert "want" not in told
