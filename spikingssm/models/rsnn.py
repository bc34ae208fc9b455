"""Recurrent spiking networks: layers of connected neurons, and leaky integrators that read them."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sdn import BRF, Dynamics, RecurrentState, Solver, SpikeGradient
from sdn.checks.arguments import Spelled, check_count, check_tensor
from sdn.checks.axes import mend, mend_step
from sdn.checks.trees import as_tree
from sdn.checks.words import MODEL_WORDS
from sdn.neuron import Start
from spikingssm.layers.heads import as_pool
from spikingssm.layers.integrator import LeakyIntegrator
from spikingssm.layers.recurrent import Recurrent
from spikingssm.models.alive import STARTS, driven
from spikingssm.models.base import SequenceModel
from spikingssm.models.silence import warn_if_silent
from spikingssm.streaming.loops import copied
from spikingssm.streaming.parts import add_integrator, add_pool, add_recurrent
from spikingssm.streaming.plan import Plan

__all__ = ["RSNN", "RSNNState"]


@as_tree
class RSNNState(NamedTuple):
    """One state per layer, the readout's potentials (B, C), and that of the pool."""

    layers: tuple[RecurrentState, ...]
    readout: Tensor
    pool: Any


class RSNN(Spelled, SequenceModel):
    """Recurrent spiking network: (B, L, d_input) -> potentials (B, L, d_output), or (B, d_output).

    Layers of `Recurrent` neurons and a `LeakyIntegrator` for each class; no norm, no dropout, no skip.

    Sizes, of which the first three need no name in front:
        d_input: features per step.
        d_output: classes.
        d_model: neurons of every layer, or a list with those of each.
        n_layers: number of layers, where ``d_model`` is a number.

    Neurons and their connections, see `Recurrent`:
        dynamics: what one neuron does in a step, such as BRF, RF or ALIF; None is BRF.
        learn: fields of the neuron to learn, and where each starts: ``{"omega": sdn.uniform(15, 50), ...}``.
        spike: spike gradient; None is the dynamics' own.
        solver: "fused" or "loop", see `sdn.recurrent`.
        mask: share of the recurrent connections that are cut at random, in [0, 1); None for none.
        bias: give the maps into the layers and the readout a bias.
        start: "alive": the first weights into a layer are larger than the published ones, so that it fires where the
            input is of unit amplitude, see `spikingssm.models.alive`. "published": for spike trains of many channels,
            and for the published recipes. The connections of a layer with itself are those of the paper in both.

    Output:
        tau_mean, tau_std: of the readout's time constants at their start, in steps.
        pool: "each" for potentials at every step, "last" for those of the last valid step, "mean" for their mean.

    Raises:
        ValueError: a size below 1, sizes that contradict each other, an unknown pool, or what the parts refuse.
        NotImplementedError: a solver that there is not for recurrent layers.

    Source: Higuchi, Kairat, Bohte, Otte, "Balanced Resonate-and-Fire Neurons", ICML 2024 (arXiv 2402.14603), with one
        layer; several are ours.
    """

    spellings = MODEL_WORDS
    layers: Sequence[Recurrent]

    def __init__(
        self,
        d_input: int,
        d_output: int,
        d_model: int | Sequence[int] = 256,
        *,
        n_layers: int = 1,
        # neurons and their connections
        dynamics: Dynamics | None = None,
        learn: Mapping[str, Start] | None = None,
        spike: SpikeGradient | None = None,
        solver: str | Solver = "fused",
        mask: float | None = None,
        bias: bool = False,
        start: str = "alive",
        # output
        tau_mean: float = 20.0,
        tau_std: float = 5.0,
        pool: str = "each",
    ) -> None:
        super().__init__()
        for name, size in {"d_input": d_input, "d_output": d_output, "n_layers": n_layers}.items():
            check_count("RSNN", name, size)
        for size in d_model if isinstance(d_model, Sequence) else [d_model]:
            check_count("RSNN", "d_model", size, least=None)
        sizes = list(d_model) if isinstance(d_model, Sequence) else [d_model] * n_layers
        if isinstance(d_model, Sequence) and n_layers not in (1, len(sizes)):
            raise ValueError(f"RSNN: d_model lists {len(sizes)} layers and n_layers is {n_layers}; leave n_layers out.")
        if not sizes or min(d_input, d_output, *sizes) < 1:
            raise ValueError(
                f"RSNN: sizes must be at least 1, got d_input={d_input}, d_output={d_output}, d_model={d_model}, "
                f"n_layers={n_layers}."
            )
        if start not in STARTS:
            raise ValueError(f"RSNN: start must be one of {', '.join(STARTS)}, got {start!r}.")
        self.d_input, self.d_output = d_input, d_output
        neuron = BRF() if dynamics is None else dynamics
        options: dict[str, Any] = {"learn": learn, "spike": spike, "bias": bias, "mask": mask, "solver": solver}
        pairs = itertools.pairwise([d_input, *sizes])
        layers = [Recurrent(inputs, neuron, size, **options) for inputs, size in pairs]
        for i, layer in enumerate(layers if start == "alive" else []):
            driven(layer.input.weight, neuron, of_spikes=i > 0)
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]  # whose types leave out what it holds
        self.readout = LeakyIntegrator(sizes[-1], d_output, tau_mean, tau_std, bias)
        self.pool = as_pool(pool, d_output)

    def forward(
        self, x: Tensor, state: RSNNState | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, RSNNState]:
        """The whole sequence, or the next chunk of one.

        Args:
            x: (B, L, d_input).
            state: state before the first step; None is rest. Chunks one after another equal the whole.
            lengths: (B,) integers, valid steps of each row, 1..L (0..L with a state); None is L.

        Returns:
            potentials (B, L, d_output) with pool "each", else (B, d_output), and the state after the last step.

        Raises:
            ValueError: x, state or lengths of another shape or range, or neurons that diverged.
        """
        self._check(x, 3, state)
        h, states = x, []
        for i, layer in enumerate(self.layers):
            h, after = layer(h, None if state is None else state.layers[i])
            states.append(after)
        y, readout = self.readout(h, None if state is None else state.readout)
        logits, pool = self.pool(y, None if state is None else state.pool, lengths)
        warn_if_silent(self, x, y, state is None)
        return logits, RSNNState(tuple(states), readout, pool)

    def step(self, x: Tensor, state: RSNNState | None = None) -> tuple[Tensor, RSNNState]:
        """One step: (B, d_input) -> the potentials (B, d_output), pooled over the prefix so far, and the state.

        Raises:
            ValueError: x or state of another shape.
        """
        self._check(x, 2, state)
        return super().step(x, state)

    def initial_state(
        self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> RSNNState:
        """The state at rest."""
        layers = tuple(layer.initial_state(batch, device, dtype) for layer in self.layers)
        readout = self.readout.initial_state(batch, device, dtype)
        return RSNNState(layers, readout, self.pool.initial_state(batch, device, dtype))

    def synapses(self) -> dict[str, tuple[str, ...]]:
        """The linear maps at which the input and the spikes of every layer arrive, its own recurrent one included."""
        maps = [f"layers.{i}.input" for i in range(len(self.layers))] + ["readout"]
        found = {f"layers.{i}": (f"layers.{i}.recurrent", maps[i + 1]) for i in range(len(self.layers))}
        return {"input": (maps[0],), **found}

    def step_plan(self) -> Plan:
        """See `SequenceModel.step_plan`."""
        plan = Plan(self.d_input, self.d_output)
        h = plan.x
        for i, layer in enumerate(self.layers):
            h = add_recurrent(plan, layer, f"layers.{i}", h)
        pooled = add_pool(plan, self.pool, add_integrator(plan, self.readout, h))
        plan.call(copied, pooled, plan.out, pooled.size)
        return plan

    def _check(self, x: Tensor, ndim: int, state: RSNNState | None) -> None:
        check_tensor("RSNN", "x", x)
        if x.ndim != ndim or x.shape[-1] != self.d_input or not x.is_floating_point() or not x.numel():
            kind = "batch, length" if ndim == 3 else "batch"
            way = mend(x, self.d_input) if ndim == 3 else mend_step(x, self.d_input)
            raise ValueError(
                f"RSNN: x must be a floating-point ({kind}, {self.d_input}), sizes >= 1, got {x.dtype} of shape "
                f"{tuple(x.shape)}{way}."
            )
        if state is not None and getattr(state, "_fields", None) != RSNNState._fields:
            raise ValueError(f"RSNN: the state must be an RSNNState, got {type(state).__name__}.")
        if state is not None and len(state.layers) != len(self.layers):
            raise ValueError(f"RSNN: the state has {len(state.layers)} layers, this model has {len(self.layers)}.")
