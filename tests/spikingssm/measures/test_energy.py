"""Operations and energies against counts written out by hand."""

import dataclasses
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import sdn
from sdn import ALIF, BRF, LIF, RF, Neuron, Surrogate
from spikingssm.layers import S4D
from spikingssm.measures.circuit import Circuit
from spikingssm.measures.energy import ADD, FUNCTION, MAC, MULTIPLY, account, joule, published
from spikingssm.measures.operations import Operations, not_counted, operations
from spikingssm.measures.spikes import record_spikes
from spikingssm.models import RSNN, SpikingSSM

ROOT = Path(__file__).parents[3]
LAYER = "blocks.0.layer.neuron"


def tiny(**options):
    """H 4, N 6 (3 modes), one block."""
    sizes = {"d_model": 4, "n_layers": 1, "d_state": 6, "solver": "loop", **options}
    return SpikingSSM(1 if "vocab" in options else 3, 2, **sizes).eval()


class Number:
    """A number that counts what is done with it; times a spike is a choice and not a multiplication."""

    counts = [0, 0]

    def __init__(self, value, spike=False):
        self.value, self.spike = value, spike

    def __mul__(self, other):
        other = other if isinstance(other, Number) else Number(other)
        Number.counts[0] += not (self.spike or other.spike)
        return Number(self.value * other.value)

    def __add__(self, other):
        Number.counts[1] += 1
        return Number(self.value + (other.value if isinstance(other, Number) else other))

    def __sub__(self, other):
        return self + Number(-(other.value if isinstance(other, Number) else other))

    __rmul__, __radd__ = __mul__, __add__

    def above(self, other):
        """A comparison, which is counted as a subtraction."""
        return Number(float((self - other).value >= 0), spike=True)


def lif(n, x, u):
    h = n.decay * u + x
    s = h.above(n.threshold)
    return s, (h - n.threshold * s,)


def alif(n, x, u, a, s):
    alpha, rho = math.exp(-1 / n.tau_m), math.exp(-1 / n.tau_a)
    a = rho * a + (1 - rho) * s
    theta, h = n.threshold + n.beta * a, alpha * u + (1 - alpha) * x
    fired = h.above(theta)
    return fired, (h - fired * theta, a, fired)


def rf(n, x, u, v):
    keep, turn = 1 - n.dt * n.damping, n.dt * n.omega
    after = keep * u - turn * v + n.dt * x
    return after.above(n.threshold), (after, keep * v + turn * u)


def brf(n, x, u, v, q):
    b = q * Number(-1.0, spike=True) + (n.boundary - n.b_offset)
    after = u + n.dt * (b * u - n.omega * v + x)
    s = after.above(n.threshold + q)
    return s, (after, v + n.dt * (n.omega * u + b * v), n.gamma * q + s)


@pytest.mark.parametrize(
    ("dynamics", "update", "std"),
    [
        (LIF(0.4, 0.7, "soft"), lif, 1.0),
        (ALIF(5.0, 20.0, 0.9, 0.05), alif, 1.0),
        (RF(12.0, 2.0, 0.02, 0.5), rf, 30.0),
        (BRF(12.0, 2.0, 0.8, 0.02, 0.5), brf, 30.0),
    ],
    ids=["lif", "alif", "rf", "brf"],
)
def test_a_step_of_a_neuron_takes_that_many_operations(dynamics, update, std):
    """The update written out on counting numbers gives the spikes of `simulate`."""
    current = std * torch.randn(1, 60, 1, dtype=torch.float64)
    state, spikes = tuple(Number(0.0) for _ in dynamics.State._fields), []
    if isinstance(dynamics, ALIF):
        state = (*state[:2], Number(0.0, spike=True))
    for x in current[0, :, 0].tolist():
        Number.counts = [0, 0]
        spike, state = update(dynamics, Number(x), *state)
        spikes.append(spike.value)
        assert Number.counts == [*dynamics.operations]
    assert spikes == sdn.simulate(dynamics, current).spike[0, :, 0].tolist()
    assert 3 < sum(spikes) < 57


def test_a_step_of_a_mode_takes_that_many_operations():
    """x = A x + B u and y += Re(C x), on counting numbers, is S4D's own step."""
    layer = S4D(1, 4, learn_b=True).double()
    z, B, C = (t.detach() for t in layer._system(torch.float64))
    modes, u = torch.randn(2, dtype=torch.complex128), Number(0.7)
    y, A = layer.D.item() * u, torch.exp(z)[0]
    Number.counts = [0, 0]
    for k in range(2):
        (a, ai), (b, bi), (c, ci), (x, xi) = (
            (Number(t.real.item()), Number(t.imag.item())) for t in (A[k], B[0, k], 2 * C[0, 0, k], modes[k])
        )
        new, new_i = a * x - ai * xi + b * u, a * xi + ai * x + bi * u
        y = y + c * new - ci * new_i
    want, _ = layer.step(torch.tensor([[0.7]], dtype=torch.float64), type(layer.initial_state(1))(modes.view(1, 1, 2)))
    assert y.value == pytest.approx(want.item(), rel=1e-12)
    found = operations(layer, 1, {})["ssm"]
    assert Number.counts == [found.multiplications - 1, found.additions - 1]  # D u stands before the loop


def test_the_published_sample_of_wikitext():
    """16 layers, 8,192 tokens, 1,024 channels: 274.9 G MACs are 1.265 J; 72.66 G ACs at 26.4 % are 65.40 mJ."""
    with torch.device("meta"):
        model = SpikingSSM(1, 1, 1024, 16, solver="loop", pool="each", vocab=100)
    found = published(model, 8192, {f"blocks.{i}.layer.neuron": 0.264 for i in range(16)})
    assert found["macs"] == 16 * 8192 * 1024 * 2048 == 274_877_906_944
    assert found["acs"] == pytest.approx(72.66e9, rel=2e-3)
    assert found["mac_joule"] == pytest.approx(1.265, rel=1e-3)
    assert found["ac_joule"] == pytest.approx(65.40e-3, rel=2e-3)
    assert found["saving"] == pytest.approx(0.95, abs=0.005)
    assert [1e12 * constant for constant in (MAC, ADD, MULTIPLY, FUNCTION)] == pytest.approx([4.6, 0.9, 3.7, 26.27])


def test_rates_count_layer_by_layer():
    model = SpikingSSM(1, 1, 4, 2, 2, solver="loop")
    found = published(model, 10, {LAYER: 0.5, "blocks.1.layer.neuron": 0.1})
    assert found["acs"] == pytest.approx(0.5 * 320 + 0.1 * 320)
    with pytest.raises(ValueError, match=r"Linear has no synapses\(\)"):
        published(nn.Linear(2, 2), 1, {})


def test_all_parts_of_a_tiny_network_by_hand():
    found = operations(tiny(), 5, {LAYER: 0.25})
    assert found == {
        "encoder": Operations(5 * 3 * 4, 5 * 3 * 4),
        "ssm": Operations(5 * 4 * (3 * 8 + 1), 5 * 4 * (3 * 6 + 1)),
        "neuron": Operations(5 * 4 * 1, 5 * 4 * 3),
        "mix": Operations(0, 5 * 0.25 * 4 * 8),
        "gate": Operations(5 * 4, 5 * 4, 5 * 4 * 2),
        "residual": Operations(0, 5 * 4),
        "norm": Operations(5 * (3 * 4 + 2), 5 * 4 * 4, 5 * 2),
        "pool": Operations(0, 5 * 4),
        "decoder": Operations(4 * 2, 4 * 2),
    }
    twin = operations(tiny(), 5, {}, dense=True)
    assert twin["mix"] == Operations(5 * 4 * 8, 5 * 4 * 8)
    assert {k: v for k, v in found.items() if k not in ("mix", "neuron")} == {
        k: v for k, v in twin.items() if k != "mix"
    }
    assert 1e12 * joule(Operations(1, 10, 100)) == pytest.approx(3.7 + 10 * 0.9 + 100 * 26.27)


def test_the_convolution_by_counting_butterflies():
    """8 steps: two real transforms of 16 numbers, each half of 8 * 4 complex butterflies, and 8 complex products."""
    ssm = operations(tiny(), 8, {LAYER: 0.0}, "fft")["ssm"]
    butterflies = 2 * (8 * 4) / 2
    assert ssm.multiplications == 4 * (4 * butterflies + 4 * 8 + 8)  # 4 channels; the last 8 are D u
    assert ssm.additions == 4 * ((2 + 4) * butterflies + 2 * 8 + 8)


def test_a_second_direction_doubles_the_recurrence_and_not_the_convolution():
    one, two = (tiny(bidirectional=both) for both in (False, True))
    modes = [operations(m, 8, {LAYER: 0.0})["ssm"].multiplications - 8 * 4 for m in (one, two)]
    assert modes[1] == 2 * modes[0]
    ffts = [operations(m, 8, {LAYER: 0.0}, "fft")["ssm"] for m in (one, two)]
    assert ffts[0] == ffts[1]


def test_a_surrogate_costs_its_network_where_it_runs():
    """136 weights, 17 biases that start sums, 16 ReLUs, 8 sums of the skip; input, comparison, threshold both ways."""
    model = tiny(solver=Surrogate(refine=2))
    assert operations(model, 1, {LAYER: 0.0})["neuron"] == Operations(1, 3) * 4
    found = operations(model, 1, {LAYER: 0.0}, "fft")["neuron"]
    assert found == Operations(136 + 2 + 2 * 1, 136 + 16 + 8 + 2 + 2 * 3) * 4
    fixed = tiny(solver="surrogate", learn_threshold=False)
    assert operations(fixed, 1, {LAYER: 0.0}, "fft")["neuron"] == Operations(136, 162) * 4


@pytest.mark.parametrize(
    ("options", "part", "want"),
    [
        ({"norm": "batch"}, "norm", Operations(4, 4) * 5),
        ({"norm": "layer", "norm_as_published": True}, "norm", None),
        ({"norm": "none"}, "norm", None),
        ({"pool": "last"}, "pool", None),
        ({"pool": "each"}, "decoder", Operations(8, 8) * 5),
        ({"patch": 7}, "encoder", Operations(84, 84) * 5),
        ({"vocab": 9}, "encoder", None),
        ({"vocab": 9, "pool": "each"}, "decoder", Operations(36, 36) * 5),
        ({"vocab": 9, "pairs": True}, "decoder", Operations(64 + 8 + 4 + 8, 64 + 8 + 4 + 4, 4)),
        ({"dynamics": LIF(0.2, reset="none")}, "neuron", Operations(4, 8) * 5),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_every_option_has_its_rule(options, part, want):
    model = tiny(**options)
    assert operations(model, 5, {LAYER: 0.0}).get(part) == want
    assert not_counted(model) == []


def test_what_no_rule_knows_is_named():
    @dataclasses.dataclass(frozen=True)
    class Own(sdn.Dynamics):
        threshold = 1.0
        State = sdn.LIF.State

        def past(self, state):
            return state.u.flip(-1)  # not elementwise

        def advance(self, state, current, spike):
            return state

    odd = nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.GRU(2, 2))
    assert not_counted(odd) == ["1 (GELU)", "2 (GRU)"]
    assert operations(odd, 3, {}) == {"other": Operations(12, 12)}
    assert not_counted(Neuron(Own(), 2, solver="loop")) == ["model (Neuron)"]
    with pytest.raises(ValueError, match="form must be one of recurrence, fft, got 'loop'"):
        operations(odd, 3, {}, "loop")


def test_an_account_is_the_counts_of_the_run():
    model, lengths = tiny(dynamics=LIF(0.3, 0.4)), torch.tensor([9, 5])
    with record_spikes(model) as record:
        model(5 * torch.randn(2, 9, 3), lengths=lengths)
    found, spikes = account(model, record), record.spikes[LAYER]
    assert found["steps"] == 7
    assert found["sops"] == found["sops_by_layer"][LAYER] == spikes * 8 / 2
    assert found["sops"] == pytest.approx(found["energy"]["published"]["acs"])
    assert found["not_counted"] == []
    rates = {LAYER: spikes / (14 * 4)}
    for form in ("recurrence", "fft"):
        total, dense = (
            sum(map(joule, operations(model, 7, rates, form, dense=d).values())) for d in (False, True)
        )  # fmt: skip
        said = found["energy"][form]
        assert 1e12 * said["joule"] == pytest.approx(1e12 * total) == pytest.approx(1e12 * sum(said["parts"].values()))
        assert said["saving"] == pytest.approx(1 - total / dense)
    pairs = account(model, record, sequences=2)
    assert pairs["sops"] == 2 * found["sops"]
    assert pairs["steps"] == 14


def test_an_account_walks_the_network_once(monkeypatch):
    model, walks, walk = tiny(), [], nn.Module.named_modules
    with record_spikes(model) as record:
        model(torch.randn(2, 9, 3))

    def counted(self, *args, **options):
        walks.extend([self] if self is model else [])
        return walk(self, *args, **options)

    monkeypatch.setattr(nn.Module, "named_modules", counted)
    account(model, record)
    assert walks == [model]


def test_a_circuit_is_counted_as_its_network_with_the_weights_of_now():
    torch.manual_seed(0)
    model = RSNN(3, 2, [6, 5], mask=0.5)
    circuit, rates = Circuit(model), {"layers.0": 0.5, "layers.1": 0.25}
    assert circuit.driven == {
        "input": ("layers.0.input",), "layers.0": ("layers.0.recurrent", "layers.1.input"),
        "layers.1": ("layers.1.recurrent", "readout"),
    }  # fmt: skip
    assert circuit.drivers["readout"] == ("layers.1",)
    for part in (0, 1):  # once more with other connections
        kept = int(model.layers[0].mask.sum())
        assert circuit.linear("layers.0.recurrent") == (6, kept)
        assert circuit.linear("readout") == (5, 10)
        assert published(circuit, 7, rates) == published(model, 7, rates)
        assert operations(circuit, 7, rates) == operations(model, 7, rates)
        assert not_counted(circuit) == not_counted(model) == []
        model.layers[0].mask[0] = part


def test_a_network_without_such_maps_has_no_synapses_to_count():
    model = nn.Sequential(nn.Linear(3, 4))
    model.add_module("neuron", Neuron(LIF(), 4))
    with record_spikes(model) as record:
        model.neuron(torch.randn(2, 5, 4))
    found = account(model, record)
    assert found["sops"] == 0
    assert set(found["energy"]) == {"recurrence", "fft"}


def test_the_page_says_what_its_code_prints(capsys):
    page = (ROOT / "docs" / "energy.md").read_text()
    found = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", page, re.DOTALL)
    assert len(found) == page.count("```python") == 2
    for code, want in found:
        exec(code, {})
        assert capsys.readouterr().out == want


def test_a_surrogate_with_rounds_costs_the_neuron_once_a_round_and_more():
    found = []
    for rounds in (1, 2, 3):
        model = tiny(dynamics=LIF(0.9), solver=Surrogate(rounds=rounds), learn_threshold=False)
        found.append(operations(model, 1, {LAYER: 0.0}, "fft")["neuron"].multiplications)
    exact = operations(tiny(dynamics=LIF(0.9), learn_threshold=False), 1, {LAYER: 0.0})["neuron"].multiplications
    follows = Surrogate().stands_for(LIF(0.9))[1].network.width > 0  # then the spike and its slope are in it
    derivative = 4 if follows else 1
    assert found[2] - found[1] == found[1] - found[0] == 4 * (1 + derivative)
    assert exact == 4
    guess = 1 + derivative + 8 + (10 * 6 + 6 * 6 + 6) / 32  # a run, averages, the network's weights
    assert found[0] == pytest.approx(4 * (guess + 1))
