"""The metrics of a card beside those of NeuroBench itself, on a network that its hooks can see.

`make test-peers` runs these tests where NeuroBench and snnTorch are. Elsewhere they are skipped.
"""

import importlib
import itertools
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import sdn
from spikingssm.measures.card import metrics_of
from spikingssm.measures.spikes import spikes_of

ROWS, BATCH, STEPS, SIZES = 8, 4, 60, (6, 20, 5)
STATIC = ("ParameterCount", "Footprint", "ConnectionSparsity")
WORKLOAD = ("ActivationSparsity", "ActivationSparsityByLayer", "SynapticOperations", "MembraneUpdates")


def library(name):
    """A module of a peer, or a skipped test; what it warns of while it is imported is its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            pytest.skip(f"{name} is not installed ({error.name}); make test-peers")


def pair(bias=True):
    """One network of Linear and Leaky, and the same of ours: equal weights, a third of them 0."""
    snn = library("snntorch")
    torch.manual_seed(0)
    spiking = [snn.Leaky(beta=0.8, init_hidden=True, output=last) for last in (False, True)]
    maps = [nn.Linear(*sizes, bias=bias) for sizes in itertools.pairwise(SIZES)]
    with torch.no_grad():
        for part in maps:
            part.weight.mul_(3).view(-1)[::3] = 0
    theirs = nn.Sequential(maps[0], spiking[0], maps[1], spiking[1])
    neurons = [sdn.from_snntorch(neuron).neuron(size) for neuron, size in zip(spiking, SIZES[1:], strict=True)]
    ours = sdn.Sequential(maps[0], neurons[0], maps[1], neurons[1])
    return theirs, ours


def neurobench_of(model, x, workload=WORKLOAD):
    """What NeuroBench says."""
    static, work = library("neurobench.metrics.static"), library("neurobench.metrics.workload")
    asked = [[getattr(static, name) for name in STATIC], [getattr(work, name) for name in workload]]
    loader = DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return library("neurobench.benchmarks").Benchmark(model, loader, [], [], asked).run(quiet=True)


def data(kind):
    torch.manual_seed(1)
    x = torch.randn(ROWS, STEPS, SIZES[0])
    return {"numbers": x, "spikes": (x > 1).float(), "signed": (x > 1).float() - (x < -1).float()}[kind]


@pytest.mark.parametrize("kind", ["numbers", "spikes", "signed"])
@torch.no_grad()
def test_the_same_network_in_snntorch(kind):
    models = library("neurobench.models")
    theirs, ours = pair()
    x = data(kind)
    settings = sum(b.numel() * b.element_size() for part in theirs for b in part.buffers())  # of a Leaky
    want, found = neurobench_of(models.SNNTorchModel(theirs), x), metrics_of(ours, x.split(BATCH))
    assert 0.02 < 1 - found["ActivationSparsity"] < 0.6
    assert found["ParameterCount"] == want["ParameterCount"]
    assert round(found["ConnectionSparsity"], 4) == want["ConnectionSparsity"] > 0.3
    assert found["ActivationSparsity"] == pytest.approx(want["ActivationSparsity"], abs=1e-12)
    assert found["ActivationSparsityByLayer"] == pytest.approx(want["ActivationSparsityByLayer"], abs=1e-12)
    assert found["SynapticOperations"] == want["SynapticOperations"]
    assert bool(found["SynapticOperations"]["Effective_MACs"]) == (kind == "numbers")
    assert found["MembraneUpdates"] == want["MembraneUpdates"] == STEPS * sum(SIZES[1:])
    assert found["Footprint"] == want["Footprint"] - settings


@torch.no_grad()
def test_neurobench_on_our_own_network():
    """Its hooks see a neuron that returns spikes alone."""
    models = library("neurobench.models")
    _, ours = pair()
    for part in (ours[1], ours[3]):
        part.return_state = False
    model = models.TorchModel(Output(ours))
    model.add_activation_module(sdn.Neuron)
    x = data("numbers")
    want, found = neurobench_of(model, x, WORKLOAD[:3]), metrics_of(ours, x.split(BATCH))
    for name in ("ParameterCount", "Footprint", "SynapticOperations"):
        assert found[name] == want[name]
    for name in WORKLOAD[:2]:
        assert found[name] == pytest.approx(want[name], abs=1e-12)


class Output(nn.Module):
    """A network without the state that it gives."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)[0]


@torch.no_grad()
def test_membranes_that_stay_at_rest_are_updates_of_ours_only():
    """NeuroBench counts a membrane that has changed; a dense loop computes every one."""
    models = library("neurobench.models")
    theirs, ours = pair(bias=False)
    x = data("spikes")
    x[:, 1:20] = 0
    x[:, 0] = 0
    want, found = neurobench_of(models.SNNTorchModel(theirs), x), metrics_of(ours, x.split(BATCH))
    with sdn.record_membranes(ours) as seen:
        ours(x)
    changed = sum(count_changed(seen[name]) for name in spikes_of(ours, x))
    assert found["MembraneUpdates"] == STEPS * sum(SIZES[1:]) > want["MembraneUpdates"] > changed / ROWS > 0


def count_changed(found):
    """Membranes that a step has changed, from rest on: those before two steps that differ."""
    return (found.mem[:, 1:] != found.mem[:, :-1]).sum().item()
