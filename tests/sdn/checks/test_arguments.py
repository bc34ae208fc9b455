"""Wrong arguments are answered with the right spelling; numbers may come as NumPy's or in lists."""

import copy
import dataclasses
import inspect
import math
import pickle
import re
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers import every_dynamics

import sdn
from sdn import ALIF, BRF, HRF, LIF, RF, IzhikevichRF, Neuron, simulate
from sdn.checks.arguments import ArgumentError
from spikingssm import RSNN, S4D, S5, S5RF, Recurrent, SpikingBlock, SpikingSSM, load

X, WEIGHT = torch.zeros(1, 3, 2), torch.zeros(4, 6)


class QIFState(NamedTuple):
    u: torch.Tensor


@dataclasses.dataclass(frozen=True)
class QIF(sdn.Dynamics):
    """A neuron of a user's own: nothing but the plain decorator."""

    a: float = 0.2
    taps: tuple[float, ...] = (1.0, 2.0)
    threshold: float = 1.0
    State = QIFState

    def past(self, state):
        return self.a * state.u

    def advance(self, state, current, spike):
        return QIFState((self.past(state) + current) * (1 - spike))


@dataclasses.dataclass(frozen=True)
class LossyLIF(LIF):
    """A neuron of a user's own with a constructor that takes more."""

    extra: float = 1.0
    seen: dataclasses.InitVar[int] = 0

    def __post_init__(self, seen):
        assert isinstance(self.extra, float)
        super().__post_init__()


KEYWORDS = [
    (lambda: LIF(beta=0.9), r"LIF: unexpected keyword argument 'beta'; write decay=0.9"),
    (lambda: LIF(tau=2.0), r"LIF: unexpected keyword argument 'tau'; write LIF.from_tau\(2.0\)"),
    (lambda: LIF(tau_m=20.0), r"write LIF.from_tau\(20.0\)"),
    (lambda: LIF(v_threshold=0.5), r"write threshold=0.5\."),
    (
        lambda: LIF(beta=0.9, v_th=2),
        r"unexpected keyword arguments 'beta', 'v_th'; write decay=0.9 .* and threshold=2\.",
    ),
    (lambda: LIF(reset_mechanism="zero"), r'write reset="hard"'),
    (lambda: LIF(surrogate_function=None), r"write Neuron\(dynamics, channels, spike=ArcTan\(\)\)"),
    (lambda: LIF(detach_reset=False), r"solver=Fused\(detach_reset=False\)"),
    (lambda: LIF(init_hidden=True), r"takes a state and returns spikes and state"),
    (lambda: LIF(treshold=2), r"write threshold=2\."),
    (lambda: LIF(spike_threshold=2.0), r"write threshold=2.0\."),
    (lambda: LIF(reset_mechanism="subtract"), r'write reset="soft" .*sdn.from_snntorch\("Leaky", beta=\.\.\.\)'),
    (lambda: LIF(reset_mechanism="none"), r'write reset="none"\.'),
    (lambda: LIF(v_reset=None), r'write reset="soft" \(by subtraction'),
    (lambda: LIF(v_reset=0.0), r'write reset="hard" \(to 0\)\.'),
    (lambda: LIF(v_reset=0.2), r"write sdn.from_spikingjelly\('LIFNode', v_reset=0.2, \.\.\.\).dynamics"),
    (lambda: LIF(reset_delay=True), r'write sdn.from_snntorch\("Leaky", beta=\.\.\., reset_delay=True\)'),
    (lambda: LIF(decay_input=True), r'write sdn.from_spikingjelly\("LIFNode", tau=\.\.\., decay_input=True\)'),
    (lambda: LIF(norm_input=False), r'write sdn.from_sinabs\("LIF", tau_mem=\.\.\., norm_input=False\)'),
    (lambda: LIF(v_leak=-65.0), r'write sdn.from_norse\("LIFBoxCell", v_leak=-65.0'),
    (lambda: LIF(R=1.0, C=5.0), r'write sdn.from_snntorch\("Lapicque", R=\.\.\., C=\.\.\.\).dynamics\.$'),
    (lambda: LIF(inhibition=True), r"leave inhibition out: a step is of one neuron"),
    (lambda: ALIF(adapt_scale=1.2), r"write beta=1.2\."),
    (lambda: Neuron(LIF(), 8, v_reset=None), r'write LIF\(reset="soft"\) as its dynamics'),
    (lambda: Neuron(LIF(), 8, v_reset=0.2), r"write sdn.from_spikingjelly\('LIFNode', v_reset=0.2"),
    (lambda: Neuron(LIF(), 8, reset_mechanism="zero"), r'write LIF\(reset="hard"\) as its dynamics'),
    (lambda: Neuron(LIF(), 8, surrogate_grad_fn=1), r"write spike=ArcTan\(\)"),
    (lambda: Neuron(LIF(), 8, dt=0.001), r"write LIF.from_tau\(tau / dt\) as its dynamics"),
    (lambda: Neuron(LIF(), 8, decay_input=True), r"decay_input=True\).neuron\(channels\)"),
    (lambda: LIF(foo=1), r"LIF: unexpected keyword argument 'foo'; it takes decay, threshold, reset\."),
    (lambda: LIF(foo=1, beta=0.3), r"write decay=0.3 .*; it takes decay, threshold, reset\."),
    (lambda: LIF(beta=torch.ones(99)), r"write decay=\.\.\. "),
    (lambda: LIF.from_tau(2.0, v_th=3), r"write threshold=3\."),
    (lambda: LIF().replace(beta=0.5), r"write decay=0.5"),
    (lambda: ALIF(tau=20.0), r"write tau_m=20.0 \(of the membrane\) or tau_a=20.0"),
    (lambda: ALIF(tau_adp=9.0), r"write tau_a=9.0\."),
    (lambda: RF(b=-1.0), r"write damping=1.0 \(minus the published b\)"),
    (lambda: RF(frequency=3.0), r"write omega=2 pi 3.0"),
    (lambda: IzhikevichRF(b=-2), r"write damping=2 "),
    (lambda: BRF(damping=3.0), r"write b_offset=3.0 "),
    (lambda: HRF(delta_t=0.1), r"write dt=0.1\."),
    (lambda: QIF(v_th=3), r"QIF: unexpected keyword argument 'v_th'; write threshold=3\."),
    (lambda: QIF(b=3), r"QIF: unexpected keyword argument 'b'; it takes a, taps, threshold\."),
    (lambda: LossyLIF(extr=3), r"LossyLIF: unexpected keyword argument 'extr'; write extra=3\."),
    (lambda: sdn.Triangle(alpha=4), r"Triangle: unexpected keyword argument 'alpha'; write width=1/4\."),
    (lambda: sdn.ArcTan(slope=3), r"write alpha=3\."),
    (lambda: sdn.Sigmoid(slope=25), r"write alpha=25\."),
    (lambda: sdn.MultiGaussian(lens=0.5), r"write sigma=0.5\."),
    (lambda: sdn.DoubleGaussian(gamma=0.5), r"write gain=0.5\."),
    (lambda: sdn.Loop(detach=True), r"write detach_reset=True\."),
    (lambda: sdn.Fused(backend="cupy"), r"it takes detach_reset, detach_state\."),
    (lambda: sdn.Parallel(rounds=3), r"write max_rounds=3\."),
    (lambda: sdn.Surrogate(path="a"), r"write artifact='a'\."),
    (lambda: sdn.Surrogate(alpha=2.0), r"spike=ArcTan\(\)\) \(Surrogate is a solver"),
    (
        lambda: Neuron(LIF(), 8, beta=0.9),
        r"Neuron: unexpected keyword argument 'beta'; write LIF\(decay=0.9\) as its dynamics",
    ),
    (lambda: Neuron(LIF(), 8, spike_grad=1), r"write spike=ArcTan\(\)"),
    (lambda: Neuron(LIF(), 8, learn_beta=True), r'write learn=\{"decay": None\}'),
    (lambda: Neuron(LIF(), 8, init_hidden=True), r"leave it out: the state goes in and comes out"),
    (
        lambda: Recurrent(3, LIF(), 8, in_features=3),
        r"Recurrent: unexpected keyword argument 'in_features'; write d_input=3\.",
    ),
    (lambda: S5(3, 16, surrogate_function=1), r"ResonateAndFire: unexpected keyword argument .*write spike=ArcTan\(\)"),
    (lambda: SpikingBlock(LIF(), 8, d_modl=3, solver="loop"), r"S4D: unexpected keyword argument 'd_modl'"),
    (lambda: SpikingSSM(6, 4, hidden_size=3, num_layers=2), r"write d_model=3 and n_layers=2\."),
    (lambda: SpikingSSM(6, 4, num_blocks=2), r"write n_layers=2\."),
    (lambda: S5RF(6, num_classes=4), r"S5RF: unexpected keyword argument 'num_classes'; write d_output=4\."),
    (lambda: RSNN(6, 4, hidden=8), r"write d_model=8\."),
    (lambda: S4D(8, size=3), r"write d_model=3\."),
]
VALUES = [
    (
        lambda: Neuron(LIF, 128),
        r"Neuron: dynamics must be a neuron, such as sdn.LIF\(\), got the class LIF; write sdn.L",
    ),
    (lambda: Neuron(QIF, 128), r"got the class QIF; write QIF\(\)\."),
    (lambda: Neuron("lif", 128), r"got the word 'lif'; write sdn.LIF\(\)\."),
    (lambda: Recurrent(8, 64, LIF(0.9)), r"the dynamics comes second; write Recurrent\(8, LIF\(.*\), 64\)\."),
    (lambda: Neuron("Leaky", 128), r"write sdn.LIF\(decay=0.9\)\."),
    (lambda: Neuron(sdn.Dynamics, 8), r"got the class Dynamics; write sdn.LIF\(\)\."),
    (lambda: Neuron(128, LIF()), r"Neuron: the dynamics comes first; write Neuron\(LIF\(.*\), 128\)\."),
    (lambda: Neuron(128, 64), r"dynamics must be a neuron, such as sdn.LIF\(\), got 128\."),
    (lambda: Neuron(LIF()), r"Neuron: channels missing; write Neuron\(dynamics, channels\)\."),
    (lambda: Neuron(channels=8), r"Neuron: dynamics missing; write Neuron\(dynamics, channels\)\."),
    (
        lambda: Neuron(LIF(), 8, sdn.ArcTan()),
        r"takes dynamics, channels without their names, got 3 values; write the others by name: learn=\.\.\., spike=",
    ),
    (lambda: LIF(0.9, 1.0, "hard", 3), r"LIF: takes decay, threshold, reset without their names, got 4 values\."),
    (lambda: Neuron(torch.nn.Linear(2, 2), 2), r"got a Linear\."),
    (lambda: Neuron(LIF(), "8"), r"channels must be a whole number, got '8'\."),
    (lambda: Neuron(LIF(), 8.0), r"channels must be a whole number, got 8.0\."),
    (
        lambda: Neuron(LIF(), 8, spike=sdn.Triangle),
        r"spike must be a value with slope.*Triangle; write sdn.Triangle\(\)",
    ),
    (lambda: Neuron(LIF(), 8, spike="atan"), r"got the word 'atan'; write sdn.ArcTan\(\)\."),
    (lambda: Neuron(LIF(), 8, spike=torch.sigmoid), r"spike must be a value with slope\(v\), such as sdn.Triangle\(\)"),
    (lambda: Neuron(LIF(), 8, solver=sdn.Loop), r"got the class Loop; write Loop\(\)\."),
    (lambda: Neuron(LIF(), 8, solver=sdn.Surrogate), r"got the class Surrogate; write Surrogate\(\)\."),
    (lambda: Neuron(LIF(), 8, solver="Loop"), r"got 'Loop'; write 'loop'\."),
    (lambda: Neuron(LIF(), 8, solver=None), r"solver must be one of .*got None\."),
    (lambda: Neuron(LIF(), 8, learn=["threshold"]), r"learn must map fields .*write learn=\{'threshold': None\}\."),
    (lambda: Neuron(LIF(), 8, learn="decay"), r"write learn=\{'decay': None\}\."),
    (lambda: Neuron(LIF(), 8, learn=True), r"learn must map fields to where they start, got True"),
    (lambda: sdn.Surrogate(sdn.ArcTan()), r"artifact must be an Artifact.*a spike gradient goes into Neuron"),
    (lambda: sdn.Surrogate(sdn.ArcTan), r"artifact must be an Artifact"),
    (lambda: simulate(LIF, X), r"simulate: dynamics must be a neuron"),
    (lambda: simulate(LIF(), X, spike_gradient=sdn.ArcTan), r"simulate: spike_gradient must be .*write sdn.ArcTan\(\)"),
    (lambda: sdn.recurrent(X, WEIGHT, LIF), r"recurrent: dynamics must be a neuron"),
    (lambda: sdn.recurrent(X, WEIGHT, LIF(), spike_gradient="atan"), r"recurrent: spike_gradient must be"),
    (
        lambda: sdn.resonate(X, torch.ones(1), torch.ones(1), spike_gradient=sdn.ArcTan),
        r"resonate: spike_gradient must",
    ),
    (lambda: sdn.generate(LIF, 3, 4), r"generate: dynamics must be a neuron"),
    (lambda: sdn.save_artifact("x", None, LIF), r"save_artifact: dynamics must be a neuron"),
    (lambda: sdn.save_trajectories("x", None, None, mean=0, std=1, seed=0), r"save_trajectories: dynamics must be"),
    (lambda: sdn.evaluate(None, None, LIF), r"evaluate: dynamics must be a neuron"),
    (lambda: SpikingSSM(6, 4, dynamics=LIF), r"dynamics must be a neuron.*the class LIF; write sdn.LIF\(\)"),
    (lambda: SpikingSSM(6, 4, dynamics="lif"), r"got the word 'lif'"),
    (lambda: SpikingSSM(6, 4, d_model="8"), r"SpikingSSM: d_model must be a whole number"),
    (lambda: RSNN(6, 4, dynamics=BRF), r"got the class BRF; write sdn.BRF\(\)"),
    (lambda: RSNN(6, 4, "8"), r"RSNN: d_model must be a whole number"),
    (lambda: RSNN(6, 4, solver=sdn.Loop), r"got the class Loop; write Loop\(\)"),
    (lambda: S5RF(6, 4, 16, spike=sdn.Triangle), r"ResonateAndFire: spike must be .*write sdn.Triangle\(\)"),
    (lambda: S5RF(6, 4, 16, solver=sdn.Loop), r"got the class Loop; write Loop\(\)"),
    (lambda: S4D("8"), r"S4D: d_model must be a whole number"),
    (lambda: LIF()(X), r"LIF says what a neuron does in a step; the layer is sdn.Neuron\(LIF\(\.\.\.\), channels\)"),
    (lambda: QIF()(X), r"QIF says what a neuron does in a step"),
    (lambda: Neuron(LIF(), 8, learn={"beta": 0.9}), r"LIF cannot learn 'beta'; .*; write 'decay'\."),
    (lambda: Neuron(ALIF(), 8, learn={"tau": 9.0}), r"ALIF cannot learn 'tau'; .*; write 'tau_m'\."),
    (lambda: Neuron(LIF(), 8, learn={"foo": 0.9}), r"LIF cannot learn 'foo'; .*'threshold'\]\."),
    (lambda: Neuron(LIF(), 8, learn={"decay": True}), r"learn\['decay'\] is where it starts, or None .* got True"),
    (lambda: Neuron(LIF(), 8, solver=sdn.ArcTan()), r"a spike gradient is passed as spike=ArcTan\(alpha=2.0\)"),
    (lambda: Neuron(LIF(), 2)(X, torch.zeros(1, 2)), r"must be a LIFState\('u',\), got Tensor; pass what the neur"),
    (lambda: Neuron(LIF(), 2)(X, LIF.State(torch.zeros(5, 2))), r"\(5, 2\), this current needs \(1, 2\); it is of ano"),
    (lambda: load("runs/mine-0"), r"load_config takes a list of overrides.*spikingssm.load_model\('runs/mine-0'\)"),
    (lambda: sdn.Triangle("2"), r"Triangle: width must be a number > 0, got '2'\."),
]
FIELDS = [
    (lambda: LIF("0.5"), r"LIF: decay must be a number or numbers of shape \(H,\), got '0.5'\."),
    (lambda: LIF(None), r"decay must be a number"),
    (lambda: LIF(True), r"decay must be a number"),
    (lambda: LIF(sdn.uniform(0, 1)), r"decay must be a number.*Neuron\(learn=\{'decay': \.\.\.\}\)"),
    (
        lambda: LIF(np.ones((2, 3))),
        r"decay must be a number or real numbers of shape \(H,\).*float64 of shape \(2, 3\)",
    ),
    (lambda: LIF(torch.ones(2, 3)), r"got torch.float32 of shape \(2, 3\)"),
    (lambda: LIF([[0.1]]), r"got list \[\[0.1\]\]"),
    (lambda: LIF([[0.1], [0.2, 0.3]]), r"must be a number or real numbers"),
    (lambda: LIF([]), r"got list \[\]"),
    (lambda: LIF(["a"]), r"must be a number or real numbers"),
    (lambda: LIF([True, False]), r"must be a number or real numbers"),
    (lambda: LIF(np.ones(3, complex)), r"got complex128 of shape \(3,\)"),
    (lambda: LIF([0.5, 1.5]), r"LIF: decay must be in \[0, 1\), got 1.5"),
    (lambda: LIF(threshold=np.array([1.0, np.nan])), r"threshold must be in \(0, inf\), got nan"),
    (lambda: RF(omega=[10.0, 150.0]), r"RF: omega 150.0 with damping"),
    (lambda: RF(dt=[0.01, 0.02]), r"RF: dt is one number for all neurons, got list"),
    (lambda: BRF(dt=torch.ones(3)), r"BRF: dt is one number for all neurons, got torch.float32 of shape \(3,\)"),
    (lambda: LIF.from_tau([5.0, 0.0]), r"LIF.from_tau: tau must be in \(0, inf\), got 0.0"),
    (lambda: simulate(LIF([0.1] * 4), torch.ones(1, 3, 1)), r"decay has shape \(4,\), the current has 1 channels"),
    (lambda: simulate(LIF(), X.numpy()), r"current must be a tensor, got ndarray; make one with torch.as_tensor"),
    (lambda: LIF(reset="subtract"), r"got 'subtract'; write 'soft'\."),
    (lambda: LIF(reset=["hard"]), r"reset must be 'hard', 'soft' or 'none'"),
]


def _id(case):
    return case if isinstance(case, str) else ""


@pytest.mark.parametrize(("make", "message"), KEYWORDS, ids=_id)
def test_an_unknown_keyword_names_the_right_one(make, message):
    for kind in (TypeError, ValueError):  # what Python raises, and what the commands turn into a line
        with pytest.raises(kind, match=message) as raised:
            make()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("make", "message"), [*VALUES, *FIELDS], ids=_id)
def test_a_thing_of_another_kind_is_named(make, message):
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


NUMBERS = [
    (np.full(4, 0.5), torch.full((4,), 0.5, dtype=torch.float64)),
    (np.full(4, 0.5, ">f4"), torch.full((4,), 0.5, dtype=torch.float64)),
    (np.full(4, 0.5, np.longdouble), torch.full((4,), 0.5, dtype=torch.float64)),
    ([0.1, 0.2], torch.tensor([0.1, 0.2], dtype=torch.float64)),
    ((0.1, 0.2), torch.tensor([0.1, 0.2], dtype=torch.float64)),
    (np.float32(0.5), 0.5),
    (np.array(0.5), 0.5),
    (np.int64(0), 0),
    (torch.tensor(0.5), torch.tensor(0.5)),
]


@pytest.mark.parametrize(("given", "kept"), NUMBERS, ids=[repr(g) for g, _ in NUMBERS])
def test_numbers_of_every_kind(given, kept):
    for found in (LIF(given), QIF(given), LossyLIF(given)):
        value = found.a if isinstance(found, QIF) else found.decay
        assert type(value) is type(kept)
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(kept))
        assert pickle.loads(pickle.dumps(found)) == copy.deepcopy(found) == copy.copy(found) == found
        assert hash(copy.copy(found)) == hash(found)
        assert found != found.replace(threshold=7.0)
        assert sdn.Dynamics.from_facts(found.facts()) == found


@every_dynamics
def test_an_array_counts_as_the_tensor(dynamics, std):
    """For every neuron and every learnable field: an array and a list run as the tensor of their numbers."""
    plain = {name: float(torch.as_tensor(getattr(dynamics, name)).min()) for name in dynamics.transforms}
    x = std * torch.randn(2, 40, 3, dtype=torch.float64)
    for name, value in plain.items():
        values = [value, value * 1.01, value * 0.99]
        start = dynamics.replace(**{n: torch.tensor(v) for n, v in plain.items()})
        results = [
            simulate(start.replace(**{name: given}), x).spike
            for given in (torch.tensor(values, dtype=torch.float64), np.array(values), values)
        ]
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])


def test_a_field_that_is_no_number_stays_what_it_is():
    assert QIF(taps=[1, 2]).taps == [1, 2]
    array = np.ones(3)
    assert QIF(taps=array).taps is array


def test_an_array_that_changes_later_changes_no_neuron():
    array = np.full(3, 0.5)
    lif = LIF(array)
    array[:] = 0.9
    assert lif.facts()["decay"] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("scheme", ["exp", "euler"])
def test_time_constants_of_channels(scheme):
    taus = [2.0, 5.0]
    each = [LIF.from_tau(tau, scheme).decay for tau in taus]
    for given in (taus, np.array(taus), torch.tensor(taus, dtype=torch.float64)):
        assert LIF.from_tau(given, scheme).decay.tolist() == pytest.approx(each, rel=1e-15)


def test_the_neuron_of_the_case():
    spikes, _ = Neuron(LIF(decay=np.full(4, 0.5)), 4)(torch.ones(1, 5, 4))
    assert torch.equal(spikes, Neuron(LIF(0.5), 4)(torch.ones(1, 5, 4))[0])


@pytest.mark.parametrize("kind", [LIF, BRF, QIF, sdn.Triangle, sdn.Parallel, Neuron, S5RF])
def test_help_shows_the_fields(kind):
    names = list(inspect.signature(kind).parameters)
    assert names
    assert not {"args", "named", "self"} & set(names)


def test_a_neuron_is_made_inside_a_compiled_graph():
    """`replace` with learned values and a constructor run while the compiler traces them."""
    neuron = Neuron(LIF(), 5, learn={"threshold": None, "decay": None})
    x, factor = torch.randn(2, 9, 5), torch.tensor(0.3)

    def own(x, factor):
        return simulate(QIF(a=factor, threshold=0.5), x).spike

    compiled = torch.compile(neuron, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x)[0], neuron(x)[0])
    assert torch.equal(torch.compile(own, fullgraph=True, backend="aot_eager")(x, factor), own(x, factor))


def test_the_class_of_the_error_is_public_enough():
    assert issubclass(ArgumentError, TypeError)
    assert issubclass(ArgumentError, ValueError)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: S4D(3, 8, bidirectional="no"), "S4D: bidirectional must be True or False, got 'no'"),
        (
            lambda: SpikingSSM(3, 5, 16, 1, 8, learn_threshold="false"),
            "learn_threshold must be True or False, got 'fal",
        ),
        (lambda: S5RF(3, 5, 16, 2, num_blocks=2, learn_eta=None), "S5RF: learn_eta must be True or False, got None"),
        (lambda: sdn.BRF(smooth_reset="no"), "BRF: smooth_reset must be True or False"),
        (lambda: sdn.Fused("no"), "Fused: detach_reset must be True or False"),
        (lambda: RSNN(3, 5, 16, tau_mean=math.inf), "tau_mean > 0 and tau_std >= 0 finite"),
        (lambda: RSNN(3, 5, 16, tau_std=math.nan), "tau_mean > 0 and tau_std >= 0 finite"),
        (lambda: SpikingSSM(3, 5, 16, 1, 8).with_rate(math.inf), "rate must be > 0, got inf"),
        (lambda: S4D(3, 8, dt_max=math.inf), "dt_max inf"),
        (lambda: S5RF(3, 5, 16, 2, num_blocks=2, eta_max=math.inf), "0.001 and inf"),
        (lambda: sdn.Neuron(sdn.LIF(torch.tensor([0.5, 1.5])), 2), "decay of neuron 1 of 2"),
    ],
)
def test_switches_are_bools_and_sizes_are_finite(make, says) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        make()


def test_numbers_0_and_1_are_switches_too() -> None:
    assert S4D(3, 8, bidirectional=1).bidirectional
    assert not sdn.Fused(detach_reset=np.bool_(False)).detach_reset
