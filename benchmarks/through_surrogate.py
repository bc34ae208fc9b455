"""Networks trained through a surrogate beside those trained through the exact neuron: spoken digits as spikes.

`python -m benchmarks.through_surrogate --root FOLDER [--seeds 0 1 2] [--epochs 20]` trains two feed-forward layers of
128 BRF or ALIF neurons and leaky integrators, tests all of them with the *exact* neuron, and writes
benchmarks/results/through_surrogate.json after every run, so that it can be stopped and gone on with.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sdn
from benchmarks.record import facts
from spikingssm.datasets import fsdd_spikes
from spikingssm.layers import LeakyIntegrator

__all__ = ["main"]

OUT = Path(__file__).parent / "results" / "through_surrogate.json"
HIDDEN = 128
OVER = {"omega": (2.0, 12.0), "b_offset": (6.0, 12.0)}
"""Fields of BRF that differ from neuron to neuron; its surrogate is told them."""
SOLVERS = ("fused", "surrogate", "surrogate, detached")
RATE = 0.1
"""Spikes a step that the first weights are scaled for."""
GAIN, LR = {"alif": 1.0, "brf": 3.0}, {"alif": 1e-2, "brf": 2e-2}
"""How many times the neuron's usual current its layer gets, and the peak learning rate."""


def neurons() -> dict[str, tuple[sdn.Dynamics, sdn.Artifact | None]]:
    """The neurons of a layer, and the artifact of their surrogate; None where it ships."""
    generator = torch.Generator().manual_seed(5)
    values = {name: low + (high - low) * torch.rand(HIDDEN, generator=generator) for name, (low, high) in OVER.items()}
    with tempfile.TemporaryDirectory() as folder:
        artifact = sdn.learn_surrogate(sdn.BRF(20.0), Path(folder) / "brf.safetensors", over=OVER)
    return {"alif": (sdn.ALIF(), None), "brf": (sdn.BRF(**values), artifact)}


def solver_of(word: str, artifact: sdn.Artifact | None) -> Any:
    """What runs the neurons."""
    return "fused" if word == "fused" else sdn.Surrogate(artifact, detach_state=word.endswith("detached"))


class FeedForward(nn.Module):
    """Linear maps and neurons in turn, then integrators of each class: (B, L, 140) -> (B, 10)."""

    def __init__(
        self, dynamics: sdn.Dynamics, solver: Any, gain: float = 1.0, hidden: int = HIDDEN, classes: int = 10
    ) -> None:
        super().__init__()
        self.scale = gain * dynamics.default_std
        self.maps, self.neurons = nn.ModuleList(), nn.ModuleList()
        for size in (140, hidden):
            layer = nn.Linear(size, hidden, bias=False)
            nn.init.normal_(layer.weight, std=(size * RATE) ** -0.5)
            self.maps.append(layer)
            self.neurons.append(sdn.Neuron(dynamics, hidden, solver=solver))
        self.dropout = nn.Dropout(0.25)
        self.readout = LeakyIntegrator(hidden, classes, tau_mean=20.0, tau_std=5.0)
        self.spikes: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Mean potentials of the classes; `spikes` holds the rates of both layers."""
        self.spikes = []
        for layer, neuron in zip(self.maps, self.neurons, strict=True):
            x = neuron(self.scale * layer(x))[0]
            self.spikes.append(x.detach().mean())
            x = self.dropout(x)
        found = self.readout(x)
        potentials: Tensor = found[0] if isinstance(found, tuple) else found
        return potentials.mean(1)


def main() -> None:
    """Train what is not in the file yet."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.through_surrogate", description=__doc__)
    p.add_argument("--root", required=True, help="folder of the recorded clips, as data.root of fsdd")
    p.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    p.add_argument("--epochs", type=int, default=20)
    args = p.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = json.loads(OUT.read_text()) if OUT.is_file() else {"facts": facts(), "runs": {}}
    made = neurons()
    for seed in args.seeds:
        for name, (dynamics, artifact) in made.items():
            for solver in SOLVERS:
                key = f"{name}, {solver}, seed {seed}, {args.epochs} epochs"
                if key not in found["runs"]:
                    found["runs"][key] = trained(name, dynamics, solver_of(solver, artifact), seed, args)
                    OUT.write_text(json.dumps(found, indent=1) + "\n")
                    print(key, found["runs"][key], flush=True)


def trained(name: str, dynamics: sdn.Dynamics, solver: Any, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One training: test accuracy after the last epoch, with the exact neuron and with the one it was trained with."""
    torch.manual_seed(seed)
    data = fsdd_spikes(args.root, seed=seed, batch_size=64, val_fraction=0.1)
    data.setup("fit")
    model = FeedForward(dynamics, solver, GAIN[name])
    loader = data.train_dataloader()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR[name])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(loader))
    started = time.process_time()
    for _ in range(args.epochs):
        for batch in loader:
            loss = nn.functional.cross_entropy(10 * model(batch.x), batch.y)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    seconds = time.process_time() - started
    model.eval()
    exact = FeedForward(dynamics, "fused", GAIN[name])
    exact.load_state_dict(model.state_dict())
    exact.eval()
    return {
        "loss": round(float(loss.detach()), 4), "test": accuracy(exact, data), "as trained": accuracy(model, data),
        "spike rates": [round(float(rate), 4) for rate in model.spikes], "cpu_minutes": round(seconds / 60, 2),
    }  # fmt: skip


@torch.no_grad()
def accuracy(model: nn.Module, data: Any) -> float:
    """Test accuracy in percent."""
    data.setup("test")
    right = total = 0
    for batch in data.test_dataloader():
        right += int((model(batch.x).argmax(-1) == batch.y).sum())
        total += len(batch.y)
    return round(100 * right / total, 2)


if __name__ == "__main__":
    main()
