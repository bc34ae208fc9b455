"""Formats of stored networks and results: torch files, artifacts, settings, tables."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sdn
from fuzz.contents import content
from fuzz.edits import WRONG, bombed_torch, change_place, edited_json, edited_npz, edited_torch, wrong_tensor
from fuzz.engine import Format
from fuzz.packing import npz_bomb
from sdn.runs.folder import load_checkpoint, read_metrics, resumable
from sdn.runs.resume import check_training_state
from sdn.runs.tensor_files import save_tensors
from sdn.surrogate.settings import read_config
from sdn.surrogate.training import load_sdn
from spikingssm import RSNN, S5RF, SpikingSSM
from spikingssm.datasets.images import _order
from spikingssm.datasets.inputs import Audio, Inputs, Numbers, Spikes, Tokens
from spikingssm.datasets.interface import Interface
from spikingssm.published.brf import rsnn_from_pt, rsnn_to_pt
from spikingssm.published.s5rf import s5rf_from_npz, s5rf_to_npz
from spikingssm.reports.tables import report
from spikingssm.training.fit import check_weights

__all__ = ["FORMATS"]


def _trajectory(folder: Path) -> None:
    out = sdn.generate(sdn.LIF(0.3), 20, 48, seed=5)
    sdn.save_trajectories(folder / "data.pt", out, sdn.LIF(0.3), mean=0.0, std=1.0, seed=5)


def _read_trajectory() -> Any:
    found = sdn.load_trajectories("data.pt")
    return content([*found[:3], found.facts, str(found.dynamics)])


def _sdn(folder: Path) -> None:
    net = sdn.SDN()
    found = {"state": dict(net.state_dict()), "sizes": {"d_model": 8, "kernel_size": 8, "n_layers": 1}}
    save_tensors(folder / "best.ckpt", {"epoch": 1, "state_dict": {}, "sdn": {**found, "dynamics": sdn.LIF().facts()}})


def _read_sdn() -> Any:
    net, dynamics = load_sdn("best.ckpt")
    return content([net.state_dict(), str(dynamics)])


def model() -> SpikingSSM:
    """A small network."""
    torch.manual_seed(0)
    return SpikingSSM(3, 4, 8, 1, 4, solver="loop")


def _network(folder: Path) -> None:
    save_tensors(folder / "best.ckpt", {"epoch": 1, "global_step": 9, "state_dict": model().state_dict()})


def _read_network() -> Any:
    net = model()
    net.load_state_dict(check_weights("best.ckpt", net))
    return content(net.state_dict())


def _last(folder: Path) -> None:
    counts = {"ready": 3, "completed": 3, "started": 3, "processed": 3}
    state = {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}
    found = {
        "epoch": 1, "global_step": 9, "pytorch-lightning_version": torch_lightning(),
        "state_dict": model().state_dict(),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": counts, "current": counts}}},
        "callbacks": {"EpochRecord": {"seconds": 1.0}}, "place": {"epoch": 1, "batch": 2}, "lr_schedulers": [{"a": 1}],
        "optimizer_states": [{"state": state, "param_groups": [{"lr": 0.1, "params": [0]}]}], "running": [],
    }  # fmt: skip
    for name in ("last", "best"):
        save_tensors(folder / "checkpoints" / f"{name}.ckpt", found)


def torch_lightning() -> str:
    """The version of Lightning."""
    import lightning

    return str(lightning.__version__)


def _read_last() -> Any:
    found = resumable(".")
    if found is None:
        raise FileNotFoundError("no checkpoint: the run starts anew")
    check_training_state("checkpoints/last.ckpt", found)
    return content([found, load_checkpoint("checkpoints/best.ckpt")])


def _published(neuron: str) -> Callable[[Path], None]:
    kinds = {
        "brf": (sdn.BRF(10.0, 1.0, dt=0.01), ("omega", "b_offset")),
        "rf": (sdn.RF(10.0, 1.0, dt=0.01), ("omega", "damping")),
        "alif": (sdn.ALIF(20.0, 200.0), ("tau_m", "tau_a")),
    }  # fmt: skip

    def build(folder: Path) -> None:
        torch.manual_seed(0)
        dynamics, learned = kinds[neuron]
        net = RSNN(3, 4, 6, dynamics=dynamics, learn=dict.fromkeys(learned), solver="loop", pool="each")
        rsnn_to_pt(folder / "net.pt", net)
        torch.save(torch.load(folder / "net.pt", weights_only=True), folder / "plain.pt")

    return build


def _read_published(neuron: str) -> Callable[[], Any]:
    return lambda: [content(rsnn_from_pt(name, neuron).state_dict()) for name in ("net.pt", "plain.pt")]


def _s5rf(folder: Path) -> None:
    torch.manual_seed(0)
    s5rf_to_npz(folder / "net.npz", S5RF(3, 4, 8, 2, num_blocks=2, first_discretisation="zoh", solver="loop"))


def _read_s5rf() -> Any:
    return content(s5rf_from_npz("net.npz", first_discretisation="zoh", solver="loop").state_dict())


def _orders(folder: Path) -> None:
    order = np.random.default_rng(0).permutation(784)
    torch.save(torch.as_tensor(order), folder / "order.pt")
    np.save(folder / "order.npy", order)


def _read_orders() -> Any:
    return content([_order("order.pt", 0), _order("order.npy", 0)])


def _artifact(folder: Path) -> None:
    torch.manual_seed(0)
    sdn.save_artifact(folder / "net.safetensors", sdn.reduce(sdn.SDN().eval()), sdn.LIF(0.125), {"agreement": 0.9})


def _read_artifact() -> Any:
    found = sdn.load_artifact("net.safetensors")
    return content([found.network.state_dict(), found.facts, found.digest])


def _edit_artifact(draw: random.Random, folder: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(folder / "net.safetensors", "pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    facts = json.loads(header["facts"])
    if draw.random() < 0.5:
        name = draw.choice([*tensors])
        changed = wrong_tensor(draw, tensors[name])
        if (
            not isinstance(changed, torch.Tensor)
            or changed.is_meta
            or changed.layout != torch.strided
            or changed.numel() > 9999
        ):
            changed = tensors[name] * 2 + 1
        tensors[name] = changed.contiguous()
    else:
        change_place(draw, facts, [*WRONG, 10**400])
    save_file(tensors, folder / "net.safetensors", metadata={**header, "facts": json.dumps(facts)})


def _fraud_artifact(draw: random.Random, folder: Path) -> None:
    """Numbers of the right kind, with the digest of the old ones."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(folder / "net.safetensors", "pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = draw.choice([*tensors])
    tensors[name].view(-1)[draw.randrange(tensors[name].numel())] += draw.choice([1e-3, 1.0, -5.0])
    save_file(tensors, folder / "net.safetensors", metadata=header)


def _fraud_trajectory(draw: random.Random, folder: Path) -> None:
    """Another seed, mean or version with the digest of the old facts, without a seal."""
    found = torch.load(folder / "data.pt", weights_only=True)
    facts = found["facts"]
    draw.choice([
        lambda: facts.update(seed=6), lambda: facts["distribution"].update(mean=0.5), lambda: facts.update(name="test"),
        lambda: found["mem"][3, 4].mul_(1 + 1e-6), lambda: facts["versions"].update(sdn="0"),
    ])()  # fmt: skip
    torch.save(found, folder / "data.pt")


def _settings(folder: Path) -> None:
    found: dict[str, Any] = {"training": "a.pt", "test": "b.pt", "preset": "best", "data": {"test": {"seed": 1}}}
    found |= {"d_model": 8, "kernel_size": 8, "n_layers": 1, "epochs": 4, "lr": 0.01, "loss": "l1"}
    (folder / "config.json").write_text(json.dumps(found))


def _table(folder: Path) -> None:
    lines = ["epoch,step,seconds,val/loss"] + [f"{n},{9 * n},1.5,{1 / (n + 1)}" for n in range(6)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


INPUTS = [
    Numbers(255, (0.5,), (0.2,), 2.0, (2, 0, 1)), Audio(8000, 0.06, 2, 400), Spikes(8000, steps=20),
    Tokens("bytes", 1, 64),
]  # fmt: skip


def _inputs(kind: Inputs) -> Callable[[Path], None]:
    length, channels = {"audio": (200, 1), "spikes": (20, 140), "tokens": (64, 1)}.get(kind.kind, (3, 1))
    return lambda folder: Interface("own", length, channels, 2, kind, classes=("a", "b")).write(folder)


def _read_inputs() -> Any:
    found = Interface.read(".")
    if isinstance(found.inputs, Tokens):
        x, lengths = found.inputs.rows([3 * [7]], 1) if not found.inputs.text else found.inputs.rows("abc", 1)
    else:
        clip = np.arange(3, dtype=np.int16) if not isinstance(found.inputs, Numbers) else np.arange(3.0)
        x, lengths = found.inputs.rows(np.tile(clip, (2, 1)), 1)
    return content([str(found), found.inputs(torch.as_tensor(x)), lengths])


def _summary(folder: Path) -> None:
    result = {
        "name": "a", "seed": 0, "parameters": 9, "epochs": 3, "solver": "Loop()", "seconds": 1.5, "device": "cpu",
        "variant": "", "cpu_minutes": 0.1, "val": {"accuracy": 0.5, "epoch": 2}, "versions": {"sdn": "0"},
        "dataset": {"name": "d", "size": "full", "train": 9, "val": 2, "test": 3, "length": 4, "split": "s", "seed": 0},
        "test": {"accuracy": 0.5, "loss": 0.4, "spike_rate": 0.1, "spike_rates": {"l": 0.1}, "sops": 9.0, "energy": {}},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(result, indent=2))


FORMATS = [
    Format(
        "trajectory.pt", _trajectory, _read_trajectory, ["data.pt"], True,
        [edited_torch("data.pt", True), edited_torch("data.pt", False), bombed_torch("data.pt")], [_fraud_trajectory],
    ),
    Format(
        "sdn.ckpt", _sdn, _read_sdn, ["best.ckpt"], True,
        [edited_torch("best.ckpt", True, [*WRONG, 4096]), edited_torch("best.ckpt", False), bombed_torch("best.ckpt")],
    ),
    Format(
        "network.ckpt", _network, _read_network, ["best.ckpt"], True,
        [edited_torch("best.ckpt", True), edited_torch("best.ckpt", False), bombed_torch("best.ckpt")],
    ),
    Format(
        "last.ckpt", _last, _read_last, ["checkpoints/last.ckpt", "checkpoints/best.ckpt"], True,
        [edited_torch("checkpoints/last.ckpt", False), bombed_torch("checkpoints/last.ckpt")],
    ),
    *(
        Format(
            f"published-{neuron}.pt", _published(neuron), _read_published(neuron), ["net.pt", "plain.pt"], True,
            [edited_torch("net.pt", False), edited_torch("plain.pt", True), bombed_torch("plain.pt")], share=0.7,
        )
        for neuron in ("brf", "rf", "alif")
    ),
    Format("permutation.pt-npy", _orders, _read_orders, ["order.pt", "order.npy"], False),
    Format(
        "s5rf.npz", _s5rf, _read_s5rf, ["net.npz"], True, [edited_npz("net.npz")],
        [npz_bomb("net.npz", "layers.0.B_tilde")],
    ),
    Format(
        "artifact.safetensors", _artifact, _read_artifact, ["net.safetensors"], True, [_edit_artifact],
        [_fraud_artifact],
    ),
    Format(
        "sdn-config.json", _settings, lambda: content(read_config(Path("config.json"))), ["config.json"], False,
        [edited_json("config.json")],
    ),
    *(
        Format(
            f"inputs.json-{kind.kind}", _inputs(kind), _read_inputs, ["inputs.json"], False,
            [edited_json("inputs.json")], share=0.5,
        )
        for kind in INPUTS
    ),
    Format("metrics.csv", _table, lambda: content(read_metrics("metrics.csv")), ["metrics.csv"]),
    Format(
        "summary.json", _summary, lambda: content(report(["summary.json"])), ["summary.json"], False,
        [edited_json("summary.json")],
    ),
]  # fmt: skip
