"""SpikingSSM: encoder, residual spiking blocks, pooling, decoder."""

import copy
import itertools
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from sdn import LIF, Dynamics, Neuron, Solver, SpikeGradient
from spikingssm.layers.block import BlockState, Residual, SpikingBlock
from spikingssm.layers.heads import as_pool, check_lengths, padding

__all__ = ["SpikingSSM", "SpikingSSMState"]


class SpikingSSMState(NamedTuple):
    """One state per block, and the pool's."""

    blocks: tuple[BlockState, ...]
    pool: Any


class SpikingSSM(nn.Module):
    """Spiking state space network for long sequences: (B, L, d_input) -> logits (B, d_output), or (B, L, d_output).

    Linear encoder, ``n_layers`` residual `SpikingBlock`, pooling over time, linear decoder. The residual stream is real
    valued; spikes are what the linear map of every block reads.

    Args:
        d_input: features per step.
        d_output: logits.
        d_model: H.
        n_layers: blocks, >= 1.
        d_state: N of every S4D, even.
        dynamics: the neuron.
        solver: runs the neurons: "surrogate" (the shipped artifact), "fused", "parallel", "loop", or a value such as
            ``Surrogate(path)``.
        spike: spike gradient; None is the dynamics' own.
        learn_threshold: learn one threshold per channel and block.
        norm, prenorm, norm_as_published: see `Residual`.
        dropout: after the neurons and on every branch, tied over time, in [0, 1).
        bidirectional: blocks that see the future too; such a model cannot stream.
        algorithm: how the S4D layers run, "recurrence", "fft" or "auto", see `S4D`.
        learn_b, dt_min, dt_max: see `S4D`.
        pool: "mean" over time, "last" step, or "each" (logits at every step).

    Raises:
        ValueError: a size below 1, an unknown word, or what the parts refuse.

    Source: Shen et al., AAAI 2025 (arXiv 2408.14909). Where we differ from its code: post-norm is applied, an unknown
    norm is refused, networks of the surrogate solver are neither parameters nor saved with the model.
    """

    def __init__(
        self,
        d_input: int,
        d_output: int,
        d_model: int = 128,
        n_layers: int = 4,
        d_state: int = 64,
        *,
        dynamics: Dynamics = LIF(decay=0.125),  # noqa: B008
        solver: str | Solver = "surrogate",
        spike: SpikeGradient | None = None,
        learn_threshold: bool = True,
        norm: str = "layer",
        prenorm: bool = False,
        norm_as_published: bool = False,
        dropout: float = 0.1,
        bidirectional: bool = False,
        algorithm: str = "auto",
        learn_b: bool = False,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        pool: str = "mean",
    ) -> None:
        super().__init__()
        sizes = {"d_input": d_input, "d_output": d_output, "d_model": d_model, "n_layers": n_layers}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"SpikingSSM: {name} must be at least 1, got {size}.")
        self.d_input, self.d_output, self.bidirectional = d_input, d_output, bidirectional
        neuron: dict[str, Any] = {"solver": solver, "spike": spike, "learn_threshold": learn_threshold}
        ssm: dict[str, Any] = {"dt_min": dt_min, "dt_max": dt_max, "bidirectional": bidirectional, "learn_b": learn_b}
        ssm["algorithm"] = algorithm
        around: dict[str, Any] = {"norm": norm, "prenorm": prenorm, "norm_as_published": norm_as_published}
        self.encoder = nn.Linear(d_input, d_model)
        self.blocks = nn.ModuleList()
        for _ in range(n_layers):
            block = SpikingBlock(dynamics, d_model, d_state, dropout=dropout, **neuron, **ssm)
            self.blocks.append(Residual(block, d_model, dropout=dropout, **around))
        self.pool = as_pool(pool, d_model)
        self.decoder = nn.Linear(d_model, d_output)

    def forward(
        self, x: Tensor, state: SpikingSSMState | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, SpikingSSMState | None]:
        """The whole sequence, or the next chunk of one.

        Args:
            x: (B, L, d_input).
            state: state before the first step; None is rest. Chunks one after another equal the whole in eval mode.
            lengths: (B,) integers, valid steps of each row, 1..L; None is L. What lies behind them changes no logits
                (with "each": no logits before them).

        Returns:
            logits (B, d_output), or (B, L, d_output) with pool "each", and the state after the last step: None if
            bidirectional; without the S4D parts in training from rest by FFT, see `S4D.forward`.

        Raises:
            ValueError: x, state or lengths of another shape or range.
        """
        if x.ndim != 3 or x.shape[-1] != self.d_input or not x.is_floating_point() or not x.numel():
            raise ValueError(
                f"SpikingSSM: x must be a floating-point (batch, length, {self.d_input}), batch and length >= 1, "
                f"got {x.dtype} of shape {tuple(x.shape)}."
            )
        self._check_state(state)
        lengths = None if lengths is None else check_lengths(lengths, x, state)
        valid = ~padding(lengths, x.shape[1]) if lengths is not None else None
        h, states = self.encoder(x), []
        for i, block in enumerate(self.blocks):
            h, after = block(h, None if state is None else state.blocks[i], valid)
            states.append(after)
        pooled, pool = self.pool(h, None if state is None else state.pool, lengths)
        return self.decoder(pooled), None if self.bidirectional else SpikingSSMState(tuple(states), pool)

    def step(self, x: Tensor, state: SpikingSSMState | None = None) -> tuple[Tensor, SpikingSSMState]:
        """One step: (B, d_input) -> the logits of the prefix so far (B, d_output) and the state.

        Raises:
            NotImplementedError: a bidirectional model, which needs the steps to come.
            ValueError: x or state of another shape.
        """
        if x.ndim != 2 or x.shape[-1] != self.d_input:
            raise ValueError(f"SpikingSSM: a step must be (batch, {self.d_input}), got shape {tuple(x.shape)}.")
        self._check_state(state)
        h, states = self.encoder(x), []
        for i, block in enumerate(self.blocks):
            h, after = block.step(h, None if state is None else state.blocks[i])
            states.append(after)
        pooled, pool = self.pool.step(h, None if state is None else state.pool)
        return self.decoder(pooled), SpikingSSMState(tuple(states), pool)

    def initial_state(
        self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> SpikingSSMState:
        """The state at rest.

        Raises:
            NotImplementedError: a bidirectional model.
        """
        blocks = tuple(block.initial_state(batch, device, dtype) for block in self.blocks)
        return SpikingSSMState(blocks, self.pool.initial_state(batch, device, dtype))

    def with_solver(self, solver: str | Solver) -> Self:
        """A model with the very same parameters and buffers, every neuron under another solver.

        Raises:
            ValueError: the solver cannot run these neurons.
        """
        shared = {id(tensor): tensor for tensor in itertools.chain(self.parameters(), self.buffers())}
        model = copy.deepcopy(self, shared)
        for parent in list(model.modules()):
            for name, child in parent.named_children():
                if isinstance(child, Neuron):
                    setattr(parent, name, child.with_solver(solver))
        return model

    def _check_state(self, state: SpikingSSMState | None) -> None:
        if state is not None and len(state.blocks) != len(self.blocks):
            raise ValueError(
                f"SpikingSSM: the state has {len(state.blocks)} blocks, this model has {len(self.blocks)}."
            )
