"""Nodes of NIR are read as their equations, and what cannot be read is refused by name and field."""

import itertools
import sys

import numpy as np
import pytest
import torch
from nir_equations import INPUTS, noise, simulated, spikes_of, stored
from torch import nn

import sdn
from sdn.migration import NorseLIF, SnnTorchSynaptic, StrictEulerLIF
from spikingssm.export import from_nir, to_nir
from spikingssm.layers import LeakyIntegrator, Recurrent

nir = pytest.importorskip("nir")


def lif(n=INPUTS, kind="LIF", **fields):
    known = {"tau": 1e-2, "r": 1.0, "v_leak": 0.0, "v_threshold": 0.3, "v_reset": 0.0}
    if kind == "CubaLIF":
        known = {"tau_mem": 1e-2, "tau_syn": 4e-3, "w_in": 1.0} | known
        del known["tau"]
    if kind == "IF":
        known = {name: known[name] for name in ("r", "v_threshold", "v_reset")}
    if kind == "LI":
        known = {name: known[name] for name in ("tau", "r", "v_leak")}
    values = {name: np.asarray(value, np.float64) * np.ones(n) for name, value in (known | fields).items()}
    return getattr(nir, kind)(**values)


h = np.linspace(0.0, 1.0, INPUTS)
READ = {
    "R 1": (lif(), StrictEulerLIF),
    "gain 1": (lif(r=10.0, v_threshold=1.1), sdn.LIF),
    "gain 1 of each": (lif(tau=4e-3 + 8e-3 * h, r=4 + 8 * h, v_threshold=0.6 + h), sdn.LIF),
    "another gain": (lif(r=3.0, v_threshold=0.4 + 0.1 * h), sdn.LIF),
    "rest and reset": (lif(v_leak=-0.5, v_threshold=-0.2, v_reset=-0.9 + 0.3 * h), StrictEulerLIF),
    "rest, reset and a gain": (lif(r=2.0, v_leak=1.0, v_threshold=1.6, v_reset=0.8), StrictEulerLIF),
    "IF": (lif(kind="IF", v_threshold=1.2), StrictEulerLIF),
    "IF with a gain and a reset": (lif(kind="IF", r=0.5, v_threshold=0.8, v_reset=0.2), StrictEulerLIF),
    "Cuba": (lif(kind="CubaLIF", v_threshold=0.2), SnnTorchSynaptic),
    "Cuba of norse": (lif(kind="CubaLIF", w_in=4.0, v_threshold=0.5), NorseLIF),
    "Cuba of snnTorch": (lif(kind="CubaLIF", w_in=4.0, r=10.0, v_threshold=4.0), SnnTorchSynaptic),
    "Cuba with a reset": (lif(kind="CubaLIF", r=3.0, v_threshold=0.5, v_reset=-0.1), NorseLIF),
}


@pytest.mark.parametrize("again", [False, True], ids=["read", "read, written and read"])
@pytest.mark.parametrize("name", READ)
def test_a_node_is_read_as_its_equation(name, again):
    node, kind = READ[name]
    graph, x = nir.NIRGraph.from_list(node), noise(4, 2.0)
    net = from_nir(graph, dt=1e-3)
    assert type(net[0].dynamics) is kind
    if again:
        net = from_nir(to_nir(net, dt=0.02), dt=0.02)
    (spikes,), _ = spikes_of(net, x)
    assert 0.02 < spikes.mean() < 0.6, spikes.mean()
    theirs = simulated(graph, x[0], 1e-3)
    (key,) = [key for key in theirs if key not in ("input", "output")]
    np.testing.assert_array_equal(theirs[key], spikes[0].numpy())


def test_an_integrator_is_read_with_its_gain():
    graph = nir.NIRGraph.from_list(
        nir.Affine(np.eye(4, INPUTS), np.arange(4.0)), lif(4, "LI", r=np.arange(1.0, 5.0)), nir.Linear(np.ones((2, 4)))
    )
    net = from_nir(graph, dt=1e-3)
    x = noise(5)
    assert [type(part) for part in net] == [LeakyIntegrator, nn.Linear]
    np.testing.assert_allclose(simulated(graph, x[0], 1e-3)["output"], net(x)[0][0].detach(), atol=1e-5)
    assert torch.allclose(from_nir(graph, dt=1e-3, jump=True)(x)[0], 10 * net(x)[0], atol=1e-4)


def test_an_input_may_jump():
    """As sinabs without norm_input, and the LIFCell of norse: R and w_in whatever dt is."""
    x = noise(6)
    one, other = (
        from_nir(nir.NIRGraph.from_list(lif(r=r)), 1e-3, jump=jump) for r, jump in ((1.0, True), (10.0, False))
    )
    assert torch.equal(one(x)[0], other(x)[0])
    node = lif(kind="CubaLIF", v_threshold=0.5)
    other = from_nir(nir.NIRGraph.from_list(lif(kind="CubaLIF", w_in=4.0, v_threshold=0.5)), 1e-3)
    assert torch.equal(from_nir(nir.NIRGraph.from_list(node), 1e-3, jump=True)(x)[0], other(x)[0])


def test_one_number_and_a_tensor_stand_for_all_neurons():
    """As norse and sinabs leave them in a graph."""
    few = nir.LIF(*(torch.tensor(value) for value in (1e-2, 10.0, 0.0, 0.5, 0.0)))
    nodes = {"input": nir.Input(np.array([1, INPUTS])), "a": nir.Linear(torch.eye(INPUTS)), "b": few,
             "output": nir.Output(np.array([1, INPUTS]))}  # fmt: skip
    graph = nir.NIRGraph(nodes, [("b", "output"), ("input", "a"), ("a", "b"), ("a", "b")], type_check=False)
    net, x = from_nir(graph, 1e-3), noise(7)
    assert torch.equal(net(x)[0], from_nir(nir.NIRGraph.from_list(lif(r=10.0, v_threshold=0.5)), 1e-3)(x)[0])
    assert [name for name, _ in net.named_children()] == ["a", "b"]


def test_a_cycle_without_a_map_before_it_and_graphs_in_graphs():
    inner = nir.NIRGraph(
        {"input": nir.Input(np.array([INPUTS])), "lif": lif(r=10.0), "w": nir.Affine(-np.eye(INPUTS), np.ones(INPUTS)),
         "output": nir.Output(np.array([INPUTS]))},
        [("input", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "output")],
    )  # fmt: skip
    flat = nir.Flatten({"input": np.array([2, INPUTS // 2])}, start_dim=0)
    nodes = {
        "input": nir.Input(np.array([2, INPUTS // 2])),
        "flat": flat,
        "step": inner,
        "out": nir.Output(np.array([INPUTS])),
    }
    graph = nir.NIRGraph(nodes, [("input", "flat"), ("flat", "step"), ("step", "out")])
    net, x = from_nir(graph, 1e-3), noise(8)
    assert [name for name, _ in net.named_children()] == ["step_lif"]
    layer = net[0]
    assert torch.equal(layer.input.weight, torch.eye(INPUTS))
    assert torch.equal(layer.recurrent.weight, -torch.eye(INPUTS))
    assert torch.equal(layer.input.bias, torch.ones(INPUTS))
    ours = Recurrent(INPUTS, layer.dynamics, INPUTS)
    with torch.no_grad():
        ours.input.weight.copy_(torch.eye(INPUTS))
        ours.recurrent.weight.copy_(-torch.eye(INPUTS))
    assert torch.equal(net(x)[0], ours(x + 1)[0])


BAD = {
    "delay": (nir.Delay(np.ones(INPUTS)), ": Delay is not read: no layer here delays"),
    "map": (nir.Linear(np.ones((4, 9))), " (Linear): weight has shape (4, 9), and 6 values arrive"),
    "fast": (lif(4, tau=1e-6), " (LIF): tau is 1e-06 and dt is 0.001: Euler's step overshoots"),
    "slow": (lif(4, tau=1e6), " (LIF): tau is 1e+06 and dt is 0.001: no leak is left"),
    "none": (lif(4, tau=0.0), " (LIF): tau is 0; a time constant must be above 0"),
    "negative": (lif(4, r=-1.0), " (LIF): r makes a gain of -0.1"),
    "rest": (lif(4, v_leak=0.5), " (LIF): v_threshold is -0.2 above v_leak"),
    "nan": (lif(4, v_reset=np.nan), " (LIF): v_reset holds NaN"),
    "more": (lif(5), " (LIF): r has shape (5,), and 4 values"),
    "integrator": (lif(4, "LI", v_leak=1.0), " (LI): v_leak is 1; integrators here rest at 0"),
    "at once": (lif(4, "LI", tau=1e-3), " (LI): tau leaves nothing"),
    "image": (nir.Linear(np.ones((2, 4, 4))), " (Linear): weight has shape (2, 4, 4); a map here has two axes"),
    "hole": (nir.Affine(np.ones((4, 4)), np.full(4, np.nan)), " (Affine): weight or bias holds NaN"),
    "scale": (nir.Scale(np.ones(4)), ": Scale is not read: multiply the weights"),
}


def test_a_refusal_of_a_graph_lists_all_nodes_and_fields():
    nodes = {"input": nir.Input(np.array([INPUTS])), **{name: node for name, (node, _) in BAD.items()}}
    graph = nir.NIRGraph(nodes, [*itertools.pairwise(nodes)], type_check=False)
    with pytest.raises(NotImplementedError) as raised:
        from_nir(graph, dt=1e-3)
    for name, (_, words) in BAD.items():
        assert f"\n- {name}{words}" in str(raised.value)


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ([("input", "a"), ("a", "output"), ("input", "b"), ("b", "output")], "input: a and b read it"),
        ([("input", "a"), ("a", "output"), ("b", "a")], "begins with 2: input, b"),
        ([("input", "a"), ("a", "a"), ("a", "b"), ("b", "output")], "a: it feeds itself; put a Linear between"),
        ([("input", "a"), ("a", "w"), ("w", "a"), ("w", "b"), ("a", "b"), ("b", "output")], "w: a map of a cycle"),
        ([("input", "a"), ("a", "b"), ("b", "a"), ("b", "output")], "join there; only cycles of a neuron and a map"),
        ([("input", "a"), ("a", "c")], "edges name c, which is not among its nodes"),
        ([("input", "output")], "begins with"),
    ],
)
def test_only_a_line_with_cycles_is_read(edges, words):
    nodes = {"input": nir.Input(np.array([INPUTS])), "a": lif(), "b": lif(), "w": nir.Linear(np.eye(INPUTS)),
             "output": nir.Output(np.array([INPUTS]))}  # fmt: skip
    nodes = {
        name: node for name, node in nodes.items() if name != "w" or "w" in {each for edge in edges for each in edge}
    }
    with pytest.raises(NotImplementedError, match=words):
        from_nir(nir.NIRGraph(nodes, edges, type_check=False), 1e-3)


def test_an_empty_graph_another_source_and_another_dt(tmp_path):
    ends = {"input": nir.Input(np.array([2])), "output": nir.Output(np.array([2]))}
    with pytest.raises(NotImplementedError, match="nothing between its input and its output"):
        from_nir(nir.NIRGraph(ends, [("input", "output")]))
    with pytest.raises(ValueError, match=r"must be a nir.NIRGraph or a file, got a Linear"):
        from_nir(nn.Linear(2, 2))
    path = stored(to_nir(sdn.Sequential(sdn.Neuron(sdn.LIF(0.9), 2)), dt=1e-3), tmp_path)
    with pytest.warns(UserWarning, match=r"written with dt=0.001, and is read with 0.002"):
        from_nir(path, 2e-3)


def test_a_file_that_is_none_and_a_dt_in_another_unit(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        from_nir(tmp_path / "net.nir")
    (tmp_path / "net.nir").write_text("no HDF5")
    with pytest.raises(ValueError, match=r"net.nir cannot be read as a NIR graph \(OSError"):
        from_nir(tmp_path / "net.nir")
    with pytest.warns(UserWarning, match=r"a tau is 9e\+04 steps of dt=0.0001; is dt in its unit"):
        from_nir(nir.NIRGraph.from_list(lif(tau=9.0)))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(ImportError, match="nir is missing; pip install"):
        from_nir("net.nir")
