"""A graph of NIR spikes as the network that it was written from, by its own equations and read again."""

import json

import numpy as np
import pytest
import torch
from nir_equations import INPUTS, STEPS, neurons, noise, simulated, spikes_of, stored
from torch import nn

import sdn
from sdn.migration import EulerLIF
from spikingssm import RSNN, S5RF, SpikingSSM
from spikingssm.export import READERS, export, from_nir, to_nir
from spikingssm.export.nir_file import export_nir
from spikingssm.export.nir_neurons import Clock
from spikingssm.export.subject import subject
from spikingssm.layers import LeakyIntegrator, Recurrent

nir = pytest.importorskip("nir")


def drawn(seed, low, high, n):
    return low + (high - low) * torch.rand(n, generator=torch.Generator().manual_seed(seed))


def network(kind, seed=0):
    torch.manual_seed(seed)
    lif = sdn.Neuron(sdn.LIF(drawn(1, 0.3, 0.97, 12), drawn(2, 0.3, 0.9, 12)), 12)
    if kind == "sequential":
        learned = sdn.Neuron(sdn.LIF(0.8, 0.25), 9, learn={"decay": None, "threshold": None})
        maps = nn.Linear(INPUTS, 12), nn.Linear(12, 9, bias=False)
        return sdn.Sequential(maps[0], lif, nn.Dropout(0.3), maps[1], learned).eval()
    if kind == "cycle":
        return sdn.Sequential(Recurrent(INPUTS, sdn.LIF(0.9), 12, bias=True, mask=0.4), nn.Linear(12, 5), nn.Identity())
    if kind == "two":
        layers = Recurrent(INPUTS, sdn.LIF(0.8), 12), Recurrent(12, sdn.LIF(0.7, 0.3), 8, learn={"decay": None})
        return sdn.Sequential(sdn.Sequential(*layers), LeakyIntegrator(8, 3, bias=True), nn.Linear(3, 2))
    assert kind == "rsnn"
    return RSNN(INPUTS, 3, [14, 10], dynamics=sdn.LIF(0.9), learn={"decay": sdn.uniform(0.6, 0.95)}, bias=True)


KINDS = ["sequential", "cycle", "two", "rsnn"]
WAYS = {"plain": {}, "seconds": {"dt": 3e-3, "affine": True}, **READERS}


# ---- what is written
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_equations_of_the_graph_give_the_spikes_of_the_network(kind, way):
    net, x, options = network(kind), noise(), WAYS[way]
    graph = to_nir(net, **options)
    clock = {key: options[key] for key in ("dt", "step") if key in options}
    ours, answer = spikes_of(net, x)
    theirs = simulated(graph, x[0], **clock)
    assert len(neurons(graph)) == len(ours)
    for name, spikes in zip(neurons(graph), ours, strict=True):
        assert 0.02 < spikes.mean() < 0.6
        np.testing.assert_array_equal(theirs[name], spikes[0].numpy())
    np.testing.assert_allclose(theirs["output"], answer[0].numpy(), atol=2e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_read_as_the_network_that_it_was(kind, way, tmp_path):
    net, x, options = network(kind), noise(1, steps=1000), WAYS[way]
    path = stored(to_nir(net, **options), tmp_path)
    back = from_nir(path, options.get("dt", 1e-4), step=options.get("step", "euler"))
    assert isinstance(back, RSNN) == (kind == "rsnn")
    (ours, answer), (theirs, again) = spikes_of(net, x), spikes_of(back, x)
    assert [torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)] == [True] * len(ours)
    assert torch.equal(answer, again) if way != "norse" else torch.allclose(answer, again, atol=1e-6)
    for mine, other in zip(parts(net), parts(back), strict=True):
        assert torch.equal(mine, other)


def parts(net):
    """Weights, decays in float32 and time constants of a network."""
    inner = {id(part) for layer in net.modules() if isinstance(layer, Recurrent) for part in layer.children()}
    for part in net.modules():
        if isinstance(part, Recurrent):
            yield part.weight
        elif id(part) not in inner and isinstance(part, (nn.Linear, LeakyIntegrator)):
            yield part.weight
            yield from [] if part.bias is None or not part.bias.any() else [part.bias]
        if isinstance(part, LeakyIntegrator):
            yield part.tau.abs()
        if isinstance(part, sdn.Neuron):
            dynamics = part.current_dynamics()
            decay = dynamics.decay if isinstance(dynamics, sdn.LIF) else 1 - dynamics.rate
            yield torch.as_tensor(decay).double().expand(part.channels).float()


def test_parameters_are_arrays_and_names_are_words():
    graph = to_nir(network("rsnn"))
    assert [*graph.nodes] == ["input", "layers_0.w_in", "layers_0.lif", "layers_0.w_rec", "layers_1.w_in",
                              "layers_1.lif", "layers_1.w_rec", "readout.w_in", "readout.li", "output"]  # fmt: skip
    lif, li = graph.nodes["layers_0.lif"], graph.nodes["readout.li"]
    for name in ("tau", "r", "v_leak", "v_reset", "v_threshold"):
        assert isinstance(getattr(lif, name), np.ndarray)
        assert getattr(lif, name).shape == (14,)
    assert li.tau.shape == li.r.shape == li.v_leak.shape == (3,)
    net = sdn.Sequential(nn.Linear(2, 3), sdn.Neuron(sdn.LIF(0.9, 0.5), 3))
    lif = to_nir(net, dt=1e-3).nodes["part_1"]
    np.testing.assert_allclose(lif.tau, 1e-2)
    np.testing.assert_allclose(lif.r, 10)
    assert not lif.v_leak.any()
    assert not lif.v_reset.any()
    assert lif.metadata == {"dt": 1e-3, "step": "euler"}
    unit = to_nir(net, dt=1e-3, unit_r=True).nodes["part_1"]
    assert (unit.r == 1).all()
    np.testing.assert_allclose(unit.v_threshold, 0.05, rtol=1e-6)
    np.testing.assert_allclose(to_nir(net, dt=2.0, step="exact").nodes["part_1"].tau, -2 / np.log(0.9))


def test_a_membrane_on_the_threshold_fires_in_the_graph_too():
    net = sdn.Sequential(sdn.Neuron(sdn.LIF(0.5, 0.75), INPUTS))
    x = torch.randint(-4, 5, (1, STEPS, INPUTS), generator=torch.Generator().manual_seed(3)) / 8  # no sum is rounded
    (spikes,), _ = spikes_of(net, x)
    assert ((net[0](x, record="mem").mem + x) == 0.75).any()
    graph = to_nir(net)
    np.testing.assert_array_equal(simulated(graph, x[0])["part_0"], spikes[0].numpy())
    node = graph.nodes["part_0"]
    assert (node.v_threshold < 0.75).all()
    node.v_threshold = np.full(INPUTS, 0.75, np.float32)  # a node fires above its threshold only
    strict = spikes_of(from_nir(graph), x)[0][0]
    assert not torch.equal(strict, spikes)
    np.testing.assert_array_equal(simulated(graph, x[0])["part_0"], strict[0].numpy())


def test_an_export_has_a_contract_and_test_vectors(tmp_path):
    net = network("rsnn")
    path = export(net, "nir", tmp_path, name="net")
    path = path[0] if isinstance(path, list) else path
    assert sorted(each.name for each in tmp_path.iterdir()) == ["net.nir", "net.nir.json", "net.vectors.h5"]
    told = json.loads((tmp_path / "net.nir.json").read_text())
    assert told["nir"]["dt"] == 1e-4
    assert told["nir"]["mapping"]["gain"].startswith("r = 1 / (1 - decay)")
    assert told["agreement"]["checked"]
    assert told["agreement"]["spikes_that_differ"] == 0
    assert told["agreement"]["steps"] == 1000
    assert all(0.02 < rate < 0.6 for rate in told["vectors"]["spike_rates"].values())
    data, graph = nir.read_data(str(tmp_path / "net.vectors.h5")), nir.read(path)
    data.check_nodes(graph)
    x = data.nodes["input"].observables["input"]
    assert (x.dt, x.data.shape) == (1e-4, (1, 1000, INPUTS))
    theirs = simulated(graph, torch.from_numpy(x.data[0]))
    for name in ("layers_0.lif", "layers_1.lif"):
        np.testing.assert_array_equal(data.nodes[name].observables["spikes"].data[0], theirs[name])
    np.testing.assert_allclose(data.nodes["output"].observables["output"].data[0], theirs["output"], atol=2e-6)


@pytest.mark.parametrize("reader", READERS)
def test_an_export_for_a_reader_agrees_too(reader, tmp_path):
    path = export_nir(subject(network("rsnn"), "net"), tmp_path, 200, 1, True, reader)
    told = json.loads((tmp_path / "net.nir.json").read_text())
    assert {key: told["nir"][key] for key in READERS[reader]} == READERS[reader]
    assert told["agreement"]["spikes_that_differ"] == 0
    assert told["agreement"]["logits_difference"] < 1e-6
    nir.read_data(str(tmp_path / "net.vectors.h5")).check_nodes(nir.read(path))


def test_a_pool_stays_outside_and_the_contract_says_so(tmp_path):
    net = RSNN(INPUTS, 2, 8, dynamics=sdn.LIF(0.9), pool="mean")
    export(net, "nir", tmp_path)
    told = json.loads((tmp_path / "rsnn.nir.json").read_text())
    assert "average the answers of all valid steps outside" in told["output"]["meaning"]
    data = nir.read_data(str(tmp_path / "rsnn.vectors.h5")).nodes
    x = torch.from_numpy(data["input"].observables["input"].data)
    potentials = data["output"].observables["output"].data
    np.testing.assert_allclose(net(x)[0].detach(), potentials.mean(1), atol=1e-6)


# ---- what cannot be written
SSM = (
    "the network (SpikingSSM): only an RSNN and a Sequential say",
    "blocks.0.layer.ssm (S4D): its states are complex",
    "blocks.1.layer (SpikingBlock): NIR has no product of two signals",
    "blocks.1.norm (LayerNorm): NIR has no norm",
    "blocks.1.layer.neuron (Neuron): its reset is 'soft'",
    "pool (MeanOverTime): NIR has no pool over time; average",
)
PARTS = (
    "1 (Neuron): its reset is 'soft'",
    "2 (Neuron): the neuron ALIF: NIR has no threshold that adapts",
    "3 (ReLU): NIR has no node",
    "4 (Neuron): the neuron BRF: NIR has neither an oscillator nor a refractory",
    "5 (Neuron): some of its decays are 1",
    "6.layers.0 (Recurrent): the neuron BRF",
    "6.pool (LastStep): NIR has no pool over time; take the answer of the last step",
)


def test_a_refusal_lists_all_that_does_not_fit():
    with pytest.raises(NotImplementedError) as raised:
        to_nir(SpikingSSM(2, 3, d_model=8, n_layers=2, dynamics=sdn.LIF(reset="soft")))
    for words in SSM:
        assert f"\n- {words}" in str(raised.value)
    mixed = sdn.Neuron(EulerLIF(torch.tensor([0.0, 0.1, 0.1, 0.1])), 4)
    neurons = [sdn.Neuron(dynamics, 4) for dynamics in (sdn.LIF(reset="soft"), sdn.ALIF(), sdn.BRF())]
    net = sdn.Sequential(nn.Linear(2, 4), *neurons[:2], nn.ReLU(), neurons[2], mixed, RSNN(4, 2, 4, pool="last"))
    with pytest.raises(NotImplementedError) as raised:
        to_nir(net)
    for line, words in zip(str(raised.value).splitlines()[1:], PARTS, strict=True):
        assert line.startswith(f"- {words}")
    for other, words in ((S5RF(2, 3, 8), "S5"), (sdn.Sequential(), "nothing in this network")):
        with pytest.raises(NotImplementedError, match=words):
            to_nir(other)
    with pytest.raises(NotImplementedError, match="a decay of 0 is no exp"):
        to_nir(sdn.Sequential(sdn.Neuron(sdn.LIF(0.0), 2)), step="exact")


def test_a_clock_is_checked():
    for dt in (0, -1.0, "a", float("inf")):
        with pytest.raises(ValueError, match="dt must be a number > 0"):
            Clock(dt)
    with pytest.raises(ValueError, match="'euler' or 'exact', got 'rk4'"):
        to_nir(network("cycle"), step="rk4")
    rate = np.array([1e-3, 0.3, 0.9])
    for step in ("euler", "exact"):
        clock = Clock(2e-3, step)
        np.testing.assert_allclose(clock.rate(clock.tau(rate)), rate, rtol=1e-12)
    with pytest.raises(ValueError, match="reader must be one of snntorch, norse, sinabs, got 'nest'"):
        export_nir(subject(RSNN(2, 2, 3, dynamics=sdn.LIF())), None, 5, 0, True, "nest")
