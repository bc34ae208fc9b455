"""Words of snnTorch, SpikingJelly and norse, and what is written here instead: see `sdn.checks.arguments.Spelled`."""

__all__ = ["DYNAMICS_WORDS", "LAYER_WORDS", "MODEL_WORDS", "NAMES"]

DYNAMICS_WORDS = {
    **dict.fromkeys(("v_threshold", "v_th", "vth", "v_thresh", "thr", "thresh", "theta"), "threshold={value}"),
    **dict.fromkeys(
        ("spike", "spike_grad", "spike_gradient", "surrogate", "surrogate_function", "act_fun"),
        "Neuron(dynamics, channels, spike=ArcTan()) (the spike gradient is the layer's)",
    ),
    **dict.fromkeys(
        ("learn", "learnable", "trainable", "learn_threshold", "learn_beta", "learn_alpha", "learn_decay", "init_tau"),
        'Neuron(dynamics, channels, learn={"threshold": None}) (the layer says what is learned)',
    ),
    **dict.fromkeys(
        ("solver", "backend", "step_mode", "method"),
        'Neuron(dynamics, channels, solver="fused") (its step() makes single steps)',
    ),
    **dict.fromkeys(
        ("init_hidden", "output", "store_v_seq"),
        "Neuron(dynamics, channels) (it takes a state and returns spikes and state)",
    ),
    **dict.fromkeys(
        ("channels", "size", "features", "num_neurons", "hidden_size"), "Neuron(dynamics, channels={value})"
    ),
    "detach_reset": "Neuron(dynamics, channels, solver=Fused(detach_reset={value}))",
}
"""Keywords of a dynamics, in `sdn.Dynamics`; each neuron adds its own."""

LAYER_WORDS = {
    **dict.fromkeys(
        ("spike_grad", "spike_gradient", "surrogate_function", "surrogate", "act_fun"),
        "spike=ArcTan() or another spike gradient",
    ),
    **dict.fromkeys(
        ("learn_threshold", "learn_beta", "learn_decay", "learn_alpha", "learnable", "trainable", "init_tau"),
        'learn={"threshold": None} (a field and where it starts)',
    ),
    **dict.fromkeys(
        ("init_hidden", "output", "return_state", "stateful", "store_v_seq"),
        "leave it out: the state goes in and comes out, spikes, state = neuron(x, state)",
    ),
    "step_mode": "leave step_mode out: the layer runs sequences, its step() single steps",
    "backend": 'solver="fused"',
    "detach_reset": "solver=Fused(detach_reset={value})",
    **dict.fromkeys(("beta", "decay"), "LIF(decay={value}) as its dynamics"),
    **dict.fromkeys(("tau", "tau_m", "tau_mem"), "LIF.from_tau({value}) as its dynamics"),
    **dict.fromkeys(("threshold", "v_threshold", "v_th"), "LIF(threshold={value}) as its dynamics"),
    **dict.fromkeys(("reset", "reset_mechanism", "v_reset"), 'LIF(reset="hard") as its dynamics'),
    **dict.fromkeys(("neuron", "cell", "neuron_model"), "dynamics=LIF() or another neuron"),
    **dict.fromkeys(("size", "features", "num_neurons", "neurons", "hidden_size", "n_neurons"), "channels={value}"),
    **dict.fromkeys(("input_size", "in_features", "num_inputs"), "d_input={value}"),
}
"""Keywords of layers of neurons."""

MODEL_WORDS = {
    **LAYER_WORDS,
    **dict.fromkeys(("input_size", "in_features", "num_inputs", "n_inputs", "in_channels"), "d_input={value}"),
    **dict.fromkeys(("output_size", "out_features", "num_classes", "n_classes", "num_outputs"), "d_output={value}"),
    **dict.fromkeys(("hidden_size", "num_hidden", "d_hidden", "hidden", "size", "channels"), "d_model={value}"),
    **dict.fromkeys(("num_layers", "num_blocks", "n_blocks", "depth", "layers"), "n_layers={value}"),
}
"""Keywords of networks and of the layers that are no neurons."""

NAMES = {
    **dict.fromkeys(("Leaky", "LIFCell", "Lapicque", "ExpLeak"), "sdn.Neuron(sdn.LIF(decay=0.9), channels)"),
    **dict.fromkeys(("LIFNode", "ParametricLIFNode"), "sdn.Neuron(sdn.LIF.from_tau(2.0), channels)"),
    **dict.fromkeys(
        ("RLeaky", "LIFRecurrent", "LIFRecurrentCell"), "spikingssm.Recurrent(d_input, sdn.LIF(), channels)"
    ),
    **dict.fromkeys(("ALIFCell", "AdaptiveLIF", "AdLIF"), "sdn.Neuron(sdn.ALIF(), channels)"),
    **dict.fromkeys(("ATan", "atan", "Arctan"), "sdn.ArcTan()"),
}
"""Names of other libraries that `sdn` does not have."""
