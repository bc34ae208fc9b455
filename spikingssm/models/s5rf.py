"""S5-RF: layers of resonate-and-fire neurons that are a state space model, and a leaky readout."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sdn import ResonatorState, Solver, SpikeGradient
from sdn.checks.arguments import Spelled, check_count, check_kind, check_tensor
from sdn.checks.axes import check_dtype, mend, mend_step
from sdn.checks.trees import as_tree
from sdn.checks.words import MODEL_WORDS
from spikingssm.layers.encoders import check_dropout
from spikingssm.layers.heads import check_lengths
from spikingssm.layers.readout import LeakyReadout, ReadoutState
from spikingssm.layers.s5 import S5, check_solver
from spikingssm.models.alive import STARTS, multiplied
from spikingssm.models.base import SequenceModel
from spikingssm.models.silence import warn_if_silent
from spikingssm.streaming.loops import added
from spikingssm.streaming.parts import add_readout, add_s5
from spikingssm.streaming.plan import Plan

__all__ = ["S5RF", "S5RFState"]

SKIPS = ("published", "all", "none")
LOUDER = 7.0
"""What the published first weights are multiplied with for "alive": the layers then fire in 1 to 20 % of the steps."""
DROPOUTS = ("published", "all")


@as_tree
class S5RFState(NamedTuple):
    """One state per layer, and the readout's."""

    layers: tuple[ResonatorState, ...]
    readout: ReadoutState


class S5RF(Spelled, SequenceModel):
    """Resonate-and-fire network for long sequences: (B, L, d_input) -> logits (B, d_output).

    ``n_layers`` of `S5`, with identity skips between, and a `LeakyReadout`. No norm, no bias; what goes from layer to
    layer are spikes, behind a skip small whole numbers.

    Sizes, the only arguments without a name in front:
        d_input: features per step.
        d_output: classes.
        d_model: P neurons a layer, a multiple of ``num_blocks``.
        n_layers: L >= 1.

    Neurons, see `ResonateAndFire`:
        num_blocks: blocks of the HiPPO-N start.
        spectrum, eta_min, eta_max, learn_eta: their other starts, and whether the time scales are learned.
        discretisation: "dirac", "zoh" or "bilinear", of every layer but the first.
        first_discretisation: of the first layer; null is that of the others. The published networks take "zoh" where
            the input is no spike train; a first layer with "zoh" thresholds its state turned back, Re(V x).
        threshold, magnitude, refractory: what makes a spike.
        spike: spike gradient; None is the published multi-Gaussian one.
        solver: "fused", "parallel" or "loop", see `sdn.resonate`.
        reuse: see `S5`; False allows several backward passes through one graph.
        start: "alive": the first weights are 7 times the published ones, so that the layers fire where the input is of
            unit amplitude. "published": for spike trains of many channels, and for the published recipes.

    Between the layers:
        skip: "published": around the layers 0 < i < L-1; "all": around every layer but the first; "none".
        dropout: see `S5`, in [0, 1).
        dropout_at: "published": in the layers 0 < i < L-1, so in none of two; "all": in every layer.

    Raises:
        ValueError: a size below 1, an unknown word, or what the parts refuse.
        NotImplementedError: a solver that there is not for these neurons.

    Source: Huber, Lecomte, Polovnikov, von Arnim, "Scaling Up Resonate-and-Fire Networks for Fast Deep Learning", ECCV
        2024 workshops (arXiv 2504.00719). ``"all"`` and ``refractory`` are ours.
    """

    spellings = MODEL_WORDS
    answers = "sequence"
    layers: Sequence[S5]

    def __init__(
        self,
        d_input: int,
        d_output: int,
        d_model: int = 128,
        n_layers: int = 2,
        *,
        # neurons
        num_blocks: int = 8,
        spectrum: str = "hippo",
        eta_min: float = 0.001,
        eta_max: float = 0.1,
        learn_eta: bool = True,
        discretisation: str = "dirac",
        first_discretisation: str | None = None,
        threshold: float = 1.0,
        magnitude: bool = False,
        refractory: float | None = None,
        spike: SpikeGradient | None = None,
        solver: str | Solver = "fused",
        reuse: bool = True,
        start: str = "alive",
        # between the layers
        skip: str = "published",
        dropout: float = 0.0,
        dropout_at: str = "published",
    ) -> None:
        super().__init__()
        sizes = {"d_input": d_input, "d_output": d_output, "d_model": d_model, "n_layers": n_layers}
        for name, size in sizes.items():
            check_count("S5RF", name, size)
        words = {"skip": (skip, SKIPS), "dropout_at": (dropout_at, DROPOUTS), "start": (start, STARTS)}
        for name, (word, known) in words.items():
            if word not in known:
                raise ValueError(f"S5RF: {name} must be one of {', '.join(known)}, got {word!r}.")
        check_dropout(dropout)
        self.d_input, self.d_output = d_input, d_output
        inner = range(1, n_layers - 1)
        self.skips = {"published": frozenset(inner), "all": frozenset(range(1, n_layers)), "none": frozenset()}[skip]
        time: dict[str, Any] = {"num_blocks": num_blocks, "spectrum": spectrum, "learn_eta": learn_eta}
        time |= {"eta_min": eta_min, "eta_max": eta_max}
        fire: dict[str, Any] = {"threshold": threshold, "magnitude": magnitude, "refractory": refractory}
        fire |= {"spike": spike, "solver": check_solver(solver), "reuse": reuse}
        layers = []
        for i in range(n_layers):
            how = discretisation if i or first_discretisation is None else first_discretisation
            turned = i == 0 and how == "zoh" and spectrum == "hippo"
            drop = dropout if dropout_at == "all" or i in inner else 0.0
            options: dict[str, Any] = {"discretisation": how, "rotate": turned, "dropout": drop}
            layers.append(S5(d_model if i else d_input, d_model, **options, **time, **fire))
            if start == "alive":
                multiplied(layers[-1].dense.weight, LOUDER)
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]  # whose types leave out what it holds
        self.readout = LeakyReadout(d_model, d_output)

    def forward(
        self, x: Tensor, state: S5RFState | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, S5RFState]:
        """The whole sequence, or the next chunk of one.

        Args:
            x: (B, L, d_input).
            state: state before the first step; None is rest. Chunks one after another equal the whole in eval mode.
            lengths: (B,) integers, valid steps of each row, 1..L; None is L. What lies behind them changes no logits.

        Returns:
            logits (B, d_output) and the state after the last step.

        Raises:
            ValueError: x, state or lengths of another shape or range.
        """
        self._check(x, 3, state)
        if lengths is not None:
            lengths = check_lengths(lengths, x, state)
        h, states = x, []
        for i, layer in enumerate(self.layers):
            spikes, after = layer(h, None if state is None else state.layers[i])
            h = spikes + h if i in self.skips else spikes
            states.append(after)
        logits, readout = self.readout(h, None if state is None else state.readout, lengths)
        warn_if_silent(self, x, logits, state is None)
        return logits, S5RFState(tuple(states), readout)

    def step(self, x: Tensor, state: S5RFState | None = None) -> tuple[Tensor, S5RFState]:
        """One step: (B, d_input) -> the logits of the prefix so far (B, d_output) and the state.

        Raises:
            ValueError: x or state of another shape.
        """
        self._check(x, 2, state)
        return super().step(x, state)

    def initial_state(
        self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> S5RFState:
        """The state at rest."""
        layers = tuple(layer.initial_state(batch, device, dtype) for layer in self.layers)
        return S5RFState(layers, self.readout.initial_state(batch, device, dtype))

    def synapses(self) -> dict[str, tuple[str, ...]]:
        """The linear maps at which the input and the spikes of every layer arrive, behind skips too, by their names."""
        maps = (*(f"layers.{i}.dense" for i in range(len(self.layers))), "readout")
        found = {"input": maps[:1]}
        for i in range(len(self.layers)):
            last = next(j for j in range(i + 1, len(maps)) if j not in self.skips)  # which no skip hands on
            found[f"layers.{i}.neuron"] = maps[i + 1 : last + 1]
        return found

    def step_plan(self) -> Plan:
        """See `SequenceModel.step_plan`."""
        plan = Plan(self.d_input, self.d_output)
        h = plan.x
        for i, layer in enumerate(self.layers):
            spikes = add_s5(plan, layer, f"layers.{i}", h)
            if i in self.skips:
                plan.call(added, h, spikes, h.size)
            h = spikes
        add_readout(plan, self.readout, h)
        return plan

    def _check(self, x: Tensor, ndim: int, state: S5RFState | None) -> None:
        check_tensor("S5RF", "x", x)
        if x.ndim != ndim or x.shape[-1] != self.d_input or not x.is_floating_point() or not x.numel():
            kind = "batch, length" if ndim == 3 else "batch"
            way = mend(x, self.d_input) if ndim == 3 else mend_step(x, self.d_input)
            raise ValueError(
                f"S5RF: x must be a floating-point ({kind}, {self.d_input}), sizes >= 1, got {x.dtype} of shape "
                f"{tuple(x.shape)}{way}."
            )
        check_dtype("S5RF", "x", x, getattr(self.layers[0].dense, "weight", None))
        check_kind("S5RF", state, S5RFState)
        if state is not None and len(state.layers) != len(self.layers):
            raise ValueError(f"S5RF: the state has {len(state.layers)} layers, this model has {len(self.layers)}.")
