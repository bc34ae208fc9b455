"""NIR with its readers and writers: what snnTorch, norse and sinabs make of our graphs, and we of theirs.

`make test-peers` runs these tests where the libraries are. Elsewhere they are skipped. Where a peer reads something in
another way than NIR says, its test says which, and docs/howto/nir.md has the table.
"""

import contextlib
import importlib
import io
import warnings

import numpy as np
import pytest
import torch
from nir_equations import stored
from torch import nn

import sdn
from spikingssm import RSNN
from spikingssm.export import READERS, from_nir, to_nir
from spikingssm.layers import LeakyIntegrator, Recurrent

nir = pytest.importorskip("nir")

BATCH, LENGTH, INPUTS, N = 4, 600, 12, 24

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def library(name):
    """A module of a peer, or a skipped test; what it warns of while it is imported is its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError as error:
            pytest.skip(f"{name} is not installed ({error.name or error}); make test-peers")


def drawn(seed, low, high, n=N):
    return low + (high - low) * torch.rand(n, generator=torch.Generator().manual_seed(seed))


def full(value, n=N):
    return torch.full((n,), value)


def noise(seed=0):
    return torch.randn(BATCH, LENGTH, INPUTS, generator=torch.Generator().manual_seed(seed))


def network(kind):
    """Networks of ours; thresholds are one number, which is all that snnTorch reads."""
    torch.manual_seed(1)
    if kind == "line":
        neurons = sdn.Neuron(sdn.LIF(0.9, 0.7), N), sdn.Neuron(sdn.LIF(drawn(2, 0.4, 0.95, 16), 0.4), 16)
        return sdn.Sequential(nn.Linear(INPUTS, N), neurons[0], nn.Linear(N, 16, bias=False), neurons[1])
    if kind == "cycle":
        layer = Recurrent(INPUTS, sdn.LIF(0.75, 0.5), N, bias=True)
        return sdn.Sequential(layer, nn.Linear(N, 16), sdn.Neuron(sdn.LIF(0.9, 0.4), 16))
    assert kind == "cycles"
    return sdn.Sequential(
        Recurrent(INPUTS, sdn.LIF(0.75, 0.5), N, bias=True), Recurrent(N, sdn.LIF(drawn(3, 0.7, 0.95, 20), 0.3), 20)
    )


every_network = pytest.mark.parametrize("kind", ["line", "cycle", "cycles"])


def same(theirs, ours, equal=True):
    """Spikes of a rate that says something, equal in every step; or, where it is known why, far from it."""
    assert theirs.shape == ours.shape
    assert 0.02 < ours.mean() < 0.6, ours.mean()
    wrong = (theirs != ours).sum().item()
    if equal:
        assert wrong == 0, f"{wrong} of {ours.numel()} steps differ, rates {theirs.mean():.3f} and {ours.mean():.3f}"
    else:
        assert wrong > 0.02 * ours.numel(), f"only {wrong} of {ours.numel()} steps differ: what is said here is wrong"


@torch.no_grad()
def ours(net, x):
    return net(x)[0]


@torch.no_grad()
def stepped(net, x):
    """A network that takes a step and its state, over all steps."""
    out, state = [], None
    for now in x.unbind(1):
        y, state = net(now, state)
        out.append(y)
    return torch.stack(out, 1)


def through(graph, folder):
    return nir.read(str(stored(graph, folder)))


# ---- snnTorch 1.0
HARD = {"init_hidden": True, "reset_mechanism": "zero", "reset_delay": False}


def read_by_snntorch(graph):
    with contextlib.redirect_stdout(io.StringIO()):
        return library("snntorch.import_nir").import_from_nir(graph)


@every_network
def test_snntorch_reads_our_graph(kind, tmp_path):
    net, x = network(kind), noise()
    read = read_by_snntorch(through(to_nir(net, **READERS["snntorch"]), tmp_path))
    same(stepped(read, x), ours(net, x))


def test_snntorch_reads_a_cycle_that_is_not_nested_as_another_network(tmp_path):
    """It makes a graph of neurons and map, and leads the input to the map of the cycle instead of to the neurons."""
    net, x = network("cycle"), noise()
    graph = through(to_nir(net), tmp_path)
    same(stepped(read_by_snntorch(graph), x), ours(net, x), equal=False)


def test_snntorch_reads_neither_li_nor_thresholds_of_each_neuron(tmp_path):
    snn = READERS["snntorch"]
    with pytest.raises(ValueError, match=r"Unknown node type .*LI"):
        read_by_snntorch(through(to_nir(RSNN(INPUTS, 3, 8, dynamics=sdn.LIF()), **snn), tmp_path))
    net = sdn.Sequential(nn.Linear(INPUTS, N), sdn.Neuron(sdn.LIF(0.9, drawn(1, 0.5, 1.0)), N))
    with pytest.raises(AssertionError, match="v_threshold must be same for all neurons"):
        read_by_snntorch(through(to_nir(net, **snn), tmp_path))


def test_snntorch_reads_if_with_a_leak(tmp_path):
    """As a Leaky with a beta of 0.9, and with a reset by subtraction."""
    snn = library("snntorch")
    graph = nir.NIRGraph.from_list(nir.Linear(np.eye(N, INPUTS)), nir.IF(np.ones(N), np.ones(N)))
    read = read_by_snntorch(graph)
    (leaky,) = [part for part in read.modules() if isinstance(part, snn.Leaky)]
    assert (round(leaky.beta.item(), 6), leaky.reset_mechanism) == (0.9, "subtract")


def written_by_snntorch(net):
    """Their graph: parameters must be (n,), and the sample one sequence at one step."""
    with contextlib.redirect_stdout(io.StringIO()):
        return library("snntorch.export_nir").export_to_nir(net, torch.zeros(1, INPUTS), ignore_dims=[0])


def run_snntorch(net, x):
    with torch.no_grad():
        for part in net.modules():
            if hasattr(part, "reset_mem"):
                part.reset_mem()
        return torch.stack([net(now) for now in x.unbind(1)], 1)


def snntorch_networks():
    snn = library("snntorch")
    torch.manual_seed(2)
    beta = drawn(4, 0.3, 0.95)
    yield "Leaky", [snn.Leaky(beta=beta, threshold=full(0.6), **HARD)]
    more = nn.Linear(N, 16, bias=False), snn.Leaky(beta=full(0.9, 16), threshold=drawn(5, 0.2, 0.5, 16), **HARD)
    yield "two", [snn.Leaky(beta=beta, threshold=full(0.6), **HARD), *more]
    yield "Synaptic", [snn.Synaptic(alpha=full(0.5), beta=beta, threshold=full(0.8), **HARD)]
    yield "RLeaky", [snn.RLeaky(beta=0.75, linear_features=N, threshold=0.6, **HARD)]
    one_to_one = {"all_to_all": False, "V": drawn(6, -1, 1)}
    yield "RLeaky one to one", [snn.RLeaky(beta=0.75, threshold=0.6, **one_to_one, **HARD)]


@pytest.mark.parametrize("name", ["Leaky", "two", "Synaptic", "RLeaky", "RLeaky one to one"])
def test_a_graph_of_snntorch_is_read(name, tmp_path):
    net, x = nn.Sequential(nn.Linear(INPUTS, N), *dict(snntorch_networks())[name]), noise(1)
    read = from_nir(stored(written_by_snntorch(net), tmp_path))
    same(run_snntorch(net, x), ours(read, x))


def test_snntorch_does_not_write_its_reset_and_refuses_single_numbers():
    snn = library("snntorch")
    torch.manual_seed(3)
    soft = snn.Leaky(beta=full(0.8), threshold=full(0.6), init_hidden=True)  # subtracts, one step later
    net = nn.Sequential(nn.Linear(INPUTS, N), soft)
    x = 2 * noise(2)
    same(run_snntorch(net, x), ours(from_nir(written_by_snntorch(net)), x), equal=False)
    with pytest.raises(ValueError, match="type mismatch"):
        written_by_snntorch(nn.Sequential(nn.Linear(INPUTS, N), snn.Leaky(beta=0.8, **HARD)))
    with pytest.raises(AssertionError, match="must have the same shape"):
        written_by_snntorch(nn.Sequential(nn.Linear(INPUTS, N), snn.Leaky(beta=full(0.8), **HARD)))


def test_neurons_with_a_synapse_go_to_snntorch_and_back(tmp_path):
    net, x = nn.Sequential(nn.Linear(INPUTS, N), *dict(snntorch_networks())["Synaptic"]), noise(1)
    graph = to_nir(from_nir(written_by_snntorch(net)), **READERS["snntorch"])
    same(stepped(read_by_snntorch(through(graph, tmp_path)), x), run_snntorch(net, x))


# ---- norse 1.1
def read_by_norse(graph, dt=1e-3, **options):
    return library("norse.torch.utils.import_nir").from_nir(graph, dt=dt, **options)


@every_network
def test_norse_reads_our_graph(kind, tmp_path):
    net, x = network(kind), noise()
    read = read_by_norse(through(to_nir(net, **READERS["norse"]), tmp_path))
    same(stepped(read, x), ours(net, x))


def test_norse_reads_no_r_and_leaves_li_out(tmp_path):
    net, x = network("line"), noise()
    graph = through(to_nir(net, dt=1e-3), tmp_path)
    same(stepped(read_by_norse(graph, ignore_warnings=True), x), ours(net, x), equal=False)
    # an LI is no module there: without a word it is dropped, and what comes out is what the map before it gives
    net = RSNN(INPUTS, 3, N, dynamics=sdn.LIF(0.75), bias=True)
    read = read_by_norse(through(to_nir(net, **READERS["norse"]), tmp_path))
    with torch.no_grad():
        spikes = net.layers[0](x)[0]
        currents = nn.functional.linear(spikes, net.readout.weight, net.readout.bias)
    torch.testing.assert_close(stepped(read, x), currents)


def boxes(*layers, dt=1e-3):
    """A network of LIFBoxCell: (rate, threshold, leak, reset) or a module each."""
    norse, box = library("norse.torch"), library("norse.torch.functional.lif_box")
    torch.manual_seed(4)
    made = [nn.Linear(INPUTS, N)]
    for each in layers:
        fields = (
            dict(zip(("tau_mem_inv", "v_th", "v_leak", "v_reset"), each, strict=False)) if type(each) is tuple else {}
        )
        made.append(norse.LIFBoxCell(box.LIFBoxParameters(**fields), dt=dt) if fields else each)
    return norse.SequentialState(*made)


def written_by_norse(net, dt):
    return library("norse.torch.utils.export_nir").to_nir(net, torch.zeros(INPUTS), dt=dt)


@pytest.mark.parametrize(("written", "read"), [(1.0, 1e-3), (1e-3, 1e-6)])
def test_a_graph_of_norse_is_read(written, read):
    """It writes dt times the time constant: to_nir(dt=1) writes that itself, and what it writes else is in dt^2."""
    one, x = torch.as_tensor, noise(3)
    first = drawn(7, 50, 250), full(0.12), full(0.0)
    net = boxes(first, nn.Linear(N, 16), (one(200.0), one(0.1), one(0.05)))
    found = from_nir(written_by_norse(net, written), read)
    same(stepped(net, x), ours(found, x))


def test_norse_writes_no_reset_and_reads_its_own_file_with_another_time_constant(tmp_path):
    x = noise(3)
    net = boxes((drawn(7, 50, 250), full(0.12), full(0.0), full(-0.3)))
    same(stepped(net, x), ours(from_nir(stored(written_by_norse(net, 1.0), tmp_path), 1e-3), x), equal=False)
    net = boxes((torch.as_tensor(200.0), torch.as_tensor(0.12)))
    graph = written_by_norse(net, 1e-3)
    same(stepped(read_by_norse(graph), x), stepped(net, x), equal=False)
    with pytest.raises(TypeError, match="Scalar datasets"):
        stored(graph, tmp_path)


def test_other_neurons_of_norse_are_read():
    norse, lif = library("norse.torch"), library("norse.torch.functional.lif")
    one, x = torch.as_tensor, noise(4)
    cell = norse.LIFCell(lif.LIFParameters(tau_mem_inv=one(200.0), tau_syn_inv=one(300.0), v_th=one(0.3)), dt=1e-3)
    net = boxes(cell)
    graph = written_by_norse(net, 1.0)
    same(stepped(net, x), ours(from_nir(graph, 1e-3, jump=True), x))  # w_in is 1, and an input adds 1 there
    graph = to_nir(from_nir(graph, 1e-3, jump=True), **READERS["norse"])  # with the w_in that the equation asks for
    same(stepped(read_by_norse(graph), x), stepped(net, x))
    net = boxes(norse.IAFCell(norse.IAFParameters(v_th=one(1.6))))
    read = from_nir(written_by_norse(net, 1.0), 1e-3)
    same(stepped(net, x), ours(read, x))
    same(stepped(read_by_norse(to_nir(read, **READERS["norse"])), x), ours(read, x))
    net = boxes((one(200.0), one(0.1)), nn.Linear(N, 3), norse.LIBoxCell())
    found = from_nir(written_by_norse(net, 1.0), 1e-3)
    assert isinstance([*found][-1], LeakyIntegrator)
    torch.testing.assert_close(stepped(net, x), ours(found, x))


# ---- sinabs 3.1
def read_by_sinabs(graph, steps=None):
    """Their network, and that with the reset and the spikes of NIR, which they leave at their own."""
    layers, activation = library("sinabs.layers"), library("sinabs.activation")
    how = {"batch_size": BATCH} if steps is None else {"num_timesteps": steps}
    read = library("sinabs.nir").from_nir(graph, **how)
    yield read
    for part in read.modules():
        if isinstance(part, layers.LIF) and not isinstance(part, layers.ExpLeak):
            part.spike_fn, part.reset_fn = activation.SingleSpike, activation.MembraneReset()
            part.reset_states()
    yield read


@torch.no_grad()
def at_once(net, x):
    """Squeezed layers take batch and steps on one axis."""
    return net(x.flatten(0, 1))[0].unflatten(0, (BATCH, LENGTH))


def test_sinabs_reads_our_graph_with_its_own_reset(tmp_path):
    """Several spikes a step and a reset by subtraction, whatever the file says. With those of NIR it is our network."""
    net, x = network("line"), noise()
    found = read_by_sinabs(through(to_nir(net, **READERS["sinabs"]), tmp_path))
    theirs = at_once(next(found), x)
    assert theirs.max() > 1
    same(theirs, ours(net, x), equal=False)
    same(at_once(next(found), x), ours(net, x))


def test_sinabs_reads_if_with_a_lower_bound_and_no_cubalif():
    layers = library("sinabs.layers")
    graph = nir.NIRGraph.from_list(nir.Affine(np.eye(N, INPUTS), np.zeros(N)), nir.IF(np.ones(N), np.full(N, 0.8)))
    *_, read = read_by_sinabs(graph)
    (iaf,) = [part for part in read.modules() if isinstance(part, layers.IAF)]
    assert (iaf.min_v_mem == -0.8).all()
    cuba = nir.CubaLIF(*np.ones((5, N)))
    *_, read = read_by_sinabs(nir.NIRGraph.from_list(nir.Affine(np.eye(N, INPUTS), np.zeros(N)), cuba))
    x = noise()
    torch.testing.assert_close(at_once(read, x), x @ torch.eye(INPUTS, N))  # left out without a word


@pytest.mark.parametrize("kind", ["cycle", "cycles"])
def test_sinabs_runs_our_cycles_a_step_at_a_time(kind, tmp_path):
    net, x = network(kind), noise()
    _, read = read_by_sinabs(through(to_nir(net, **READERS["sinabs"]), tmp_path), steps=1)
    same(stepped(read, x), ours(net, x))


def test_sinabs_does_not_read_linear(tmp_path):
    """It knows Affine only: a Linear of a cycle is left out without a word, one at the input ends in a KeyError."""
    plain, x = {**READERS["sinabs"], "affine": False}, noise()
    net = network("cycle")
    _, read = read_by_sinabs(through(to_nir(net, **plain), tmp_path), steps=1)
    same(stepped(read, x), ours(net, x), equal=False)
    graph = through(to_nir(RSNN(INPUTS, 3, N, dynamics=sdn.LIF(0.75)), **plain), tmp_path)
    with pytest.raises(KeyError):
        next(read_by_sinabs(graph))


def test_sinabs_reads_li_with_a_gain_of_one(tmp_path):
    """Its potentials are ours over 1 - decay, a factor a class; so the largest may be another class."""
    net, x = RSNN(INPUTS, 3, N, dynamics=sdn.LIF(0.75)), noise()
    _, read = read_by_sinabs(through(to_nir(net, **READERS["sinabs"]), tmp_path), steps=1)
    found = stepped(read, x) * (1 - net.readout.alpha.detach())
    torch.testing.assert_close(found, ours(net, x), atol=1e-5, rtol=1e-4)


def sinabs_network(*made, hard=True):
    layers, activation = library("sinabs.layers"), library("sinabs.activation")
    torch.manual_seed(5)
    how = {"spike_fn": activation.SingleSpike, "reset_fn": activation.MembraneReset()} if hard else {}
    parts = [nn.Linear(INPUTS, N)]
    for kind, fields in made:
        parts.append(kind(**fields) if kind is nn.Linear else getattr(layers, kind)(**fields, **how))
    return nn.Sequential(*parts)


def written_by_sinabs(net, sample=(1, 1, INPUTS)):
    with torch.no_grad():
        net(torch.zeros(1, 1, INPUTS))  # it writes IAF only once it has a state
    return library("sinabs.nir").to_nir(net, torch.zeros(*sample))


@torch.no_grad()
def run_sinabs(net, x):
    for part in net.modules():
        if hasattr(part, "reset_states"):
            part.reset_states()
    return net(x)


SINABS = {
    "normed, one tau": ({"tau_mem": 9.0, "spike_threshold": torch.tensor(0.12)}, {}),
    "normed": ({"tau_mem": drawn(8, 3, 20), "spike_threshold": full(0.12)}, {}),
    "not normed": (
        {"tau_mem": drawn(8, 3, 20), "spike_threshold": drawn(9, 0.6, 1.2), "norm_input": False},
        {"jump": True},
    ),
    "IAF": ({"spike_threshold": full(1.2)}, {}),
}


@pytest.mark.parametrize("name", SINABS)
def test_a_graph_of_sinabs_is_read(name):
    """Time constants are in steps; a norm_input of False must be told to us, since R is 1 in both."""
    fields, options = SINABS[name]
    net, x = sinabs_network(("IAF" if name == "IAF" else "LIF", fields)), noise(5)
    found = from_nir(written_by_sinabs(net), 1.0, step="exact", **options)
    same(run_sinabs(net, x), ours(found, x))


def test_sinabs_does_not_write_its_reset():
    fields = SINABS["not normed"][0]
    net, x = sinabs_network(("LIF", fields), hard=False), noise(5)
    found = from_nir(written_by_sinabs(net), 1.0, step="exact", jump=True)
    same(run_sinabs(net, x), ours(found, x), equal=False)


def test_a_leak_of_sinabs_is_read(tmp_path):
    layers = library("sinabs.layers")
    net, x = sinabs_network(("LIF", SINABS["not normed"][0])), noise(5)
    net.append(nn.Linear(N, 3)).append(layers.ExpLeak(full(9.0, 3)))
    found = from_nir(written_by_sinabs(net), 1.0, step="exact", jump=True)
    torch.testing.assert_close(run_sinabs(net, x), ours(found, x), atol=1e-5, rtol=1e-4)
