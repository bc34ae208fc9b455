"""The spiking block of SpikingSSM, and the residual connection with its norm around any layer."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sdn import Dynamics, Neuron, Solver, SpikeGradient
from sdn.checks.arguments import check_kind
from sdn.checks.finite import nothing
from sdn.checks.trees import as_tree
from sdn.checks.watched import is_watched
from spikingssm.layers.maps import is_plain
from spikingssm.layers.s4d import S4D, S4DState

__all__ = ["BlockState", "Residual", "SpikingBlock", "TiedDropout"]


@as_tree
class BlockState(NamedTuple):
    """State of the S4D and of the neuron behind it."""

    ssm: S4DState
    neuron: Any


class TiedDropout(nn.Module):
    """Dropout whose mask is one for all steps of a sequence: (B, L, H) times a mask (B, 1, H) of 0 and 1/(1-p).

    Args:
        p: probability of zeroing a channel, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout must be in [0, 1), got {p}.")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, H) -> (B, L, H); itself in eval mode."""
        if not self.training or self.p == 0:
            return x
        return x * nn.functional.dropout(x.new_ones(len(x), 1, x.shape[-1]), self.p)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"p={self.p}"


class SpikingBlock(nn.Module):
    """S4D, spiking neuron, dropout tied over time, Linear(H, 2H) and a gated linear unit: (B, L, H) -> (B, L, H).

    The spikes are the only input of the linear map, so inference needs no multiplications there. In training, dropout
    makes them 0 and 1/(1-p): read spike rates with `spikingssm.measures.spikes.record_spikes`, which looks before it.

    Args:
        dynamics: the neuron.
        d_model: H.
        d_state: N of the S4D.
        solver: runs the neuron: "surrogate", "fused", "parallel", "loop", or a value.
        spike: spike gradient; None is the dynamics' own.
        learn_threshold: learn one threshold per channel.
        learn: further fields of the neuron that are learned per channel, such as ["decay"].
        dropout: in [0, 1).
        ssm: further arguments of `S4D`: dt_min, dt_max, bidirectional, learn_b.

    Raises:
        ValueError: from `S4D`, `sdn.Neuron` or the dropout.

    Source: Shen et al., AAAI 2025 (arXiv 2408.14909), there SS4D.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        d_model: int,
        d_state: int = 64,
        *,
        solver: str | Solver = "surrogate",
        spike: SpikeGradient | None = None,
        learn_threshold: bool = True,
        learn: Sequence[str] = (),
        dropout: float = 0.0,
        **ssm: Any,
    ) -> None:
        super().__init__()
        self.ssm = S4D(d_model, d_state, **ssm)
        if learn_threshold and isinstance(dynamics, Dynamics) and "threshold" not in dynamics.transforms:
            raise ValueError(
                f"{type(dynamics).__name__} has no threshold that can be learned; set learn_threshold=False, and name "
                "what is learned in learn=(...)."
            )
        fields = dict.fromkeys([*(["threshold"] if learn_threshold else []), *learn])
        self.neuron = Neuron(dynamics, d_model, learn=fields, spike=spike, solver=solver)
        self.dropout = TiedDropout(dropout)
        self.output = nn.Linear(d_model, 2 * d_model)

    def forward(self, x: Tensor, state: BlockState | None = None) -> tuple[Tensor, BlockState | None]:
        """(B, L, H) and a state (None: rest) -> (B, L, H) and the state after, or None if bidirectional."""
        check_kind("SpikingBlock", state, BlockState)
        current, ssm = self.ssm(x, None if state is None else state.ssm)
        spikes, neuron = self.neuron(current, None if state is None else state.neuron)
        return self._mix(spikes.to(x.dtype)), None if ssm is None else BlockState(ssm, neuron)

    def step(self, x: Tensor, state: BlockState | None = None) -> tuple[Tensor, BlockState]:
        """One step: (B, H) -> (B, H) and the state."""
        if is_watched(self):
            y, after = self(x.unsqueeze(1), state)
            return y.squeeze(1), after
        check_kind("SpikingBlock", state, BlockState)
        current, ssm = self.ssm.step(x, None if state is None else state.ssm)
        spikes, neuron = self.neuron.step(current, None if state is None else state.neuron)
        return self._mix(spikes.to(x.dtype), one=True), BlockState(ssm, neuron)

    def initial_state(
        self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> BlockState:
        """The state at rest."""
        ssm = self.ssm.initial_state(batch, device, dtype)
        return BlockState(ssm, self.neuron.initial_state(batch, device, torch.promote_types(dtype, torch.float32)))

    def synapses(self) -> dict[str, tuple[str, ...]]:
        """The linear map that the spikes of the neuron drive, by their names in this block."""
        return {"neuron": ("output",)}

    def _mix(self, spikes: Tensor, one: bool = False) -> Tensor:
        """Spikes (B, L, H), or (B, H) of one step -> the branch, of the same shape."""
        spikes = self.dropout(spikes.unsqueeze(1)).squeeze(1) if one and self.training else self.dropout(spikes)
        if not is_plain(self.output):
            return nn.functional.glu(self.output(spikes), -1)
        bias = self.output.bias + nothing(self.output.bias)  # an infinite one would open a gate, or close it
        return nn.functional.glu(nn.functional.linear(spikes, self.output.weight, bias), -1)


class Residual(nn.Module):
    """A layer with a skip connection and a norm: ``x + drop(f(norm(x)))`` or ``norm(x + drop(f(x)))``.

    Args:
        layer: f, with `forward(x, state)`, `step` and `initial_state`.
        d_model: H.
        norm: "batch" (over batch and time), "layer" (over channels) or "none".
        prenorm: norm before the layer, else after the sum.
        norm_as_published: compute post-norm as the published code runs: the norm exists but its result goes nowhere, so
            the output is ``x + drop(f(x))`` and its parameters are not trained. For comparisons only.
        dropout: on the branch, tied over time, in [0, 1).

    Raises:
        ValueError: an unknown norm (the published code builds an identity from it), or norm_as_published with prenorm.

    Source: Shen et al., AAAI 2025 (arXiv 2408.14909) and its code, from which this post-norm differs.
    """

    def __init__(
        self,
        layer: nn.Module,
        d_model: int,
        *,
        norm: str = "layer",
        prenorm: bool = False,
        norm_as_published: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if norm not in ("batch", "layer", "none"):
            raise ValueError(f"Residual: norm must be 'batch', 'layer' or 'none', got {norm!r}.")
        if prenorm and norm_as_published:
            raise ValueError("Residual: norm_as_published is about post-norm, got prenorm=True; drop one of the two.")
        self.layer: Any = layer  # which has a step and an initial_state
        self.prenorm, self.norm_as_published = prenorm, norm_as_published
        norms: dict[str, Callable[[int], nn.Module]] = {
            "batch": ChannelBatchNorm,
            "layer": nn.LayerNorm,
            "none": lambda _: nn.Identity(),
        }
        self.norm = norms[norm](d_model).requires_grad_(not norm_as_published)
        self.dropout = TiedDropout(dropout)

    def forward(self, x: Tensor, state: Any = None, valid: Tensor | None = None) -> tuple[Tensor, Any]:
        """The whole sequence.

        Args:
            x: (B, L, H).
            state: of the layer; None is rest.
            valid: (B, L, 1), False at padding, which the layer then sees as 0 (a layer that looks ahead needs it) and
                which a batch norm leaves out of its statistics; None is all True.

        Returns:
            (B, L, H) and the layer's state.
        """
        inner = self._normed(x, valid) if self.prenorm else x
        branch, state = self.layer(inner if valid is None else inner.masked_fill(~valid, 0), state)
        return self._join(x, branch, valid), state

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One step: (B, H) -> (B, H) and the state."""
        x = x.unsqueeze(1)
        if is_watched(self):
            y, state = self(x, state)
            return y.squeeze(1), state
        branch, state = self.layer.step((self.norm(x) if self.prenorm else x).squeeze(1), state)
        return self._join(x, branch.unsqueeze(1)).squeeze(1), state

    def initial_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
        """The layer's state at rest."""
        return self.layer.initial_state(batch, device, dtype)

    def _join(self, x: Tensor, branch: Tensor, valid: Tensor | None = None) -> Tensor:
        total = x + self.dropout(branch)
        return total if self.prenorm or self.norm_as_published else self._normed(total, valid)

    def _normed(self, x: Tensor, valid: Tensor | None) -> Tensor:
        y: Tensor = self.norm(x, valid) if isinstance(self.norm, ChannelBatchNorm) else self.norm(x)
        return y


class ChannelBatchNorm(nn.BatchNorm1d):
    """Batch norm over the channels of (B, L, H), statistics over batch and time."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B, L, H) -> (B, L, H); steps that are not valid (B, L, 1) come out as 0 in training."""
        if not self.training and self.running_var is not None:
            var = self.running_var + nothing(self.running_var)  # an infinite one would make 0 of everything
            flat, stored = x.reshape(-1, x.shape[-1]), (self.running_mean, var)
            return nn.functional.batch_norm(flat, *stored, self.weight, self.bias, eps=self.eps).view(x.shape)
        if valid is None or not self.training:
            return super().forward(x.reshape(-1, x.shape[-1])).view(x.shape)
        mask = valid.squeeze(-1)
        return torch.zeros_like(x).masked_scatter(valid, super().forward(x[mask]).to(x.dtype))
