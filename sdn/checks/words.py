"""Words of snnTorch, SpikingJelly, norse and sinabs, and what is written here: see `sdn.checks.arguments.Spelled`."""

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["DYNAMICS_WORDS", "LAYER_WORDS", "LIBRARIES", "LIF_WORDS", "MODEL_WORDS", "NAMES", "Words"]

Words = Mapping[str, str | Callable[[Any], str]]
"""Word of another library -> what is written here, or a function of the value that was given with it."""
LIBRARIES = ("snntorch", "spikingjelly", "norse", "sinabs")
"""Packages whose neurons ``sdn.from_NAME`` reads."""

_SHAPE = ("shape", "record_states", "batch_size", "num_timesteps", "sparse")
DYNAMICS_WORDS: Words = {
    **dict.fromkeys(
        ("v_threshold", "v_th", "vth", "v_thresh", "thr", "thresh", "theta", "spike_threshold"), "threshold={value}"
    ),
    **dict.fromkeys(
        ("spike", "spike_grad", "spike_gradient", "surrogate", "surrogate_function", "surrogate_grad_fn", "act_fun"),
        "Neuron(dynamics, channels, spike=ArcTan()) (the spike gradient is the layer's)",
    ),
    **dict.fromkeys(
        ("learn_beta", "learn_decay"),
        'Neuron(dynamics, channels, learn={"decay": None}) (the layer says what is learned)',
    ),
    **dict.fromkeys(
        ("learn", "learnable", "trainable", "learn_threshold", "learn_alpha"),
        'Neuron(dynamics, channels, learn={"threshold": None}) (the layer says what is learned)',
    ),
    **dict.fromkeys(
        ("solver", "backend", "step_mode", "method"),
        'Neuron(dynamics, channels, solver="fused") (its step() makes single steps)',
    ),
    **dict.fromkeys(
        ("init_hidden", "output", "store_v_seq", *_SHAPE),
        "Neuron(dynamics, channels) (it takes a state and returns spikes and state)",
    ),
    **dict.fromkeys(
        ("channels", "size", "features", "num_neurons", "hidden_size"), "Neuron(dynamics, channels={value})"
    ),
    "detach_reset": "Neuron(dynamics, channels, solver=Fused(detach_reset={value}))",
    "inhibition": "leave inhibition out: a step is of one neuron, which does not see the others",
    "state_quant": "leave state_quant out: states are not rounded",
    **dict.fromkeys(
        ("graded_spikes_factor", "learn_graded_spikes_factor"),
        "leave graded_spikes_factor out: spikes are 0 or 1, and the weights of the next layer hold a factor",
    ),
    "spike_fn": "leave spike_fn out: a neuron gives one spike a step at most",
}
"""Keywords of a dynamics, in `sdn.Dynamics`; each neuron adds its own."""


def _v_reset(value: Any) -> str:
    if value is None:
        return 'reset="soft" (by subtraction of the threshold)'
    if isinstance(value, (int, float)) and value == 0:
        return 'reset="hard" (to 0)'
    return "sdn.from_spikingjelly('LIFNode', v_reset={value}, ...).dynamics (a LIF resets to 0)"


def _reset_mechanism(value: Any) -> str:
    if value == "zero":
        return 'reset="hard" (to 0)'
    if value == "none":
        return 'reset="none"'
    return (
        'reset="soft" (by subtraction, in the step of the spike; snnTorch subtracts one step later, as '
        'sdn.from_snntorch("Leaky", beta=...).dynamics does)'
    )


LIF_WORDS: Words = {
    **dict.fromkeys(("beta", "alpha", "leak", "u_decay", "v_decay"), "decay={value} (the factor kept per step)"),
    **dict.fromkeys(
        ("tau", "tau_m", "tau_mem", "tau_membrane", "init_tau"),
        'LIF.from_tau({value}), tau in steps (LIF.from_tau({value}, "euler") for a decay of 1 - 1/tau)',
    ),
    "tau_mem_inv": "LIF.from_tau(tau), tau = 1 / (dt tau_mem_inv) in steps",
    **dict.fromkeys(("dt", "time_step"), "LIF.from_tau(tau / dt) (a step has length 1)"),
    **dict.fromkeys(
        ("hard_reset", "reset_mode", "reset_fn", "reset_method"),
        'reset="hard" (to 0), reset="soft" (by subtraction) or reset="none"',
    ),
    "v_reset": _v_reset,
    "reset_mechanism": _reset_mechanism,
    "reset_delay": 'sdn.from_snntorch("Leaky", beta=..., reset_delay={value}).dynamics (a LIF resets at once)',
    "decay_input": 'sdn.from_spikingjelly("LIFNode", tau=..., decay_input={value}).dynamics (a LIF takes its input x1)',
    "norm_input": 'sdn.from_sinabs("LIF", tau_mem=..., norm_input={value}).dynamics (a LIF takes its input x1)',
    "min_v_mem": 'sdn.from_sinabs("LIF", tau_mem=..., min_v_mem={value}).dynamics (a LIF has no lower bound)',
    "v_leak": 'sdn.from_norse("LIFBoxCell", v_leak={value}, ...).dynamics (a LIF rests at 0)',
    **dict.fromkeys(
        ("tau_syn", "tau_syn_inv"),
        "sdn.from_sinabs, from_norse or from_snntorch, which have a LIF with a synaptic current (a LIF has none)",
    ),
    **dict.fromkeys(("R", "C"), 'sdn.from_snntorch("Lapicque", R=..., C=...).dynamics'),
    "p": "sdn.from_norse(p, dt=...).dynamics",
}
"""Keywords of `sdn.LIF`; some depend on the value."""

LAYER_WORDS: Words = {
    **dict.fromkeys(
        ("spike_grad", "spike_gradient", "surrogate_function", "surrogate_grad_fn", "surrogate", "act_fun"),
        "spike=ArcTan() or another spike gradient",
    ),
    **dict.fromkeys(("learn_beta", "learn_decay", "init_tau"), 'learn={"decay": None} (a field and where it starts)'),
    **dict.fromkeys(
        ("learn_threshold", "learn_alpha", "learnable", "trainable"),
        'learn={"threshold": None} (a field and where it starts)',
    ),
    **dict.fromkeys(
        ("init_hidden", "output", "return_state", "stateful", "store_v_seq"),
        "leave it out: the state goes in and comes out, spikes, state = neuron(x, state)",
    ),
    "step_mode": "leave step_mode out: the layer runs sequences, its step() single steps",
    "backend": 'solver="fused"',
    "detach_reset": "solver=Fused(detach_reset={value})",
    **dict.fromkeys(("beta", "decay", "alpha"), "LIF(decay={value}) as its dynamics"),
    **dict.fromkeys(("tau", "tau_m", "tau_mem"), "LIF.from_tau({value}) as its dynamics"),
    **dict.fromkeys(("dt", "time_step", "tau_mem_inv"), "LIF.from_tau(tau / dt) as its dynamics (a step has length 1)"),
    **dict.fromkeys(("threshold", "v_threshold", "v_th", "spike_threshold"), "LIF(threshold={value}) as its dynamics"),
    "reset": "LIF(reset={value}) as its dynamics",
    "v_reset": lambda value: (
        f"LIF({_v_reset(value).partition(' (')[0]}) as its dynamics" if value is None or value == 0 else _v_reset(value)
    ),
    "reset_mechanism": lambda value: f"LIF({_reset_mechanism(value).partition(' (')[0]}) as its dynamics",
    "decay_input": 'sdn.from_spikingjelly("LIFNode", tau=..., decay_input={value}).neuron(channels)',
    "reset_delay": 'sdn.from_snntorch("Leaky", beta=..., reset_delay={value}).neuron(channels)',
    "norm_input": 'sdn.from_sinabs("LIF", tau_mem=..., norm_input={value}).neuron(channels)',
    "p": "sdn.from_norse(p, dt=...).neuron(channels)",
    **dict.fromkeys(("neuron", "cell", "neuron_model"), "dynamics=LIF() or another neuron"),
    **dict.fromkeys(("size", "features", "num_neurons", "neurons", "hidden_size", "n_neurons"), "channels={value}"),
    **dict.fromkeys(("input_size", "in_features", "num_inputs"), "d_input={value}"),
}
"""Keywords of layers of neurons."""

MODEL_WORDS: Words = {
    **LAYER_WORDS,
    **dict.fromkeys(("input_size", "in_features", "num_inputs", "n_inputs", "in_channels"), "d_input={value}"),
    **dict.fromkeys(("output_size", "out_features", "num_classes", "n_classes", "num_outputs"), "d_output={value}"),
    **dict.fromkeys(("hidden_size", "num_hidden", "d_hidden", "hidden", "size", "channels"), "d_model={value}"),
    **dict.fromkeys(("num_layers", "num_blocks", "n_blocks", "depth", "layers"), "n_layers={value}"),
}
"""Keywords of networks and of the layers that are no neurons."""

OTHER_PACKAGE = (
    "Recurrent", "SpikingSSM", "S5RF", "RSNN", "load_model", "dead_neurons", "record_spikes", "spikes_of",
)  # fmt: skip
"""Names of `spikingssm` that one may look for in `sdn`."""
_LIF = "sdn.Neuron(sdn.LIF(decay=0.9), channels), or for the very same spikes sdn.from_{0}.neuron(channels)"
_TAU = "sdn.Neuron(sdn.LIF.from_tau(2.0), channels), or for the very same spikes sdn.from_{0}.neuron(channels)"
_HELD = "sdn.from_{0}({1}).neuron(channels)"
_AT_REST = "spikes, state = neuron(x): no layer keeps a state, and None is rest"
NAMES = {
    "Leaky": _LIF.format('snntorch("Leaky", beta=0.9)'),
    "Lapicque": _HELD.format("snntorch", '"Lapicque", R=1.0, C=10.0'),
    "LIFCell": _LIF.format('norse("LIFCell", dt=0.001)'),
    "LIFBoxCell": _LIF.format('norse("LIFBoxCell", dt=0.001)'),
    "LIFNode": _TAU.format('spikingjelly("LIFNode", tau=2.0)'),
    **dict.fromkeys(
        ("ParametricLIFNode", "PLIFNode", "PLIF"), _HELD.format("spikingjelly", '"ParametricLIFNode", init_tau=2.0')
    ),
    "Synaptic": _HELD.format("snntorch", '"Synaptic", alpha=0.9, beta=0.8'),
    "Alpha": _HELD.format("snntorch", '"Alpha", alpha=0.9, beta=0.8'),
    **dict.fromkeys(("IFNode", "IF"), _HELD.format("spikingjelly", '"IFNode"')),
    **dict.fromkeys(("IAF", "IAFSqueeze"), _HELD.format("sinabs", '"IAF", spike_fn="SingleSpike"')),
    "IAFCell": _HELD.format("norse", '"IAFCell"'),
    **dict.fromkeys(
        ("ExpLeak", "LI", "LICell", "NonSpikingLIFNode"), "sdn.scan(a, b), a leak that never spikes: a[t] x[t-1] + b[t]"
    ),
    **dict.fromkeys(
        ("RLeaky", "RSynaptic", "LIFRecurrent", "LIFRecurrentCell", "IAFRecurrent", "ALIFRecurrent"),
        "spikingssm.Recurrent(d_input, sdn.LIF(), channels)",
    ),
    **dict.fromkeys(("ALIFCell", "AdaptiveLIF", "AdLIF", "LSNNCell"), "sdn.Neuron(sdn.ALIF(), channels)"),
    **dict.fromkeys(("ATan", "atan", "Arctan"), "sdn.ArcTan()"),
    **dict.fromkeys(("PiecewiseQuadratic", "triangular", "triangle"), "sdn.Triangle()"),
    **dict.fromkeys(("fast_sigmoid", "FastSigmoid", "SuperSpike"), "sdn.migration.FastSigmoid(25.0)"),
    **dict.fromkeys(("SingleExponential", "PiecewiseExp"), "sdn.migration.Exponential(width=0.5, gain=2.0)"),
    **dict.fromkeys(("reset_net", "reset_states", "reset_hidden", "reset_mem", "init_leaky"), _AT_REST),
    **dict.fromkeys(("SequentialState", "Lift"), "sdn.Sequential(...)"),
    **{name: f"spikingssm.{name}" for name in OTHER_PACKAGE},
    **dict.fromkeys(
        ("functional", "layer", "layers", "activation", "backprop", "activation_based"),
        "the names of docs/migration.md, which has a table for every library",
    ),
}
"""Names of other libraries that `sdn` does not have."""
