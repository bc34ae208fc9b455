"""Pooling heads: from features at every step to what the decoder reads, with a state so that they can stream."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sdn.checks.arguments import ArgumentError, check_kind
from sdn.checks.axes import check_sequence, check_step
from sdn.checks.finite import demand
from sdn.checks.tracing import has_numbers
from sdn.checks.trees import as_tree

__all__ = ["EachStep", "LastState", "LastStep", "MeanOverTime", "MeanState", "PairDecoder", "as_pool"]


@as_tree
class MeanState(NamedTuple):
    """Sum over the steps so far, (B, H), and their number, (B,)."""

    sum: Tensor
    count: Tensor  # type: ignore[assignment]  # a tuple's own count is of no use here


@as_tree
class LastState(NamedTuple):
    """The features of the last valid step, (B, H)."""

    last: Tensor


class _Pool(nn.Module):
    """What pools share: a step is a sequence of length one.

    Args:
        d_model: H.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One step: (B, H) -> what the pool says of the prefix, (B, H), and the state."""
        check_step(type(self).__name__, "x", x, self.d_model)
        pooled, state = self(x.unsqueeze(1), state)
        return (pooled.squeeze(1) if pooled.ndim == 3 else pooled), state


class MeanOverTime(_Pool):
    """The mean over the valid steps: (B, L, H) -> (B, H)."""

    def forward(
        self, x: Tensor, state: MeanState | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, MeanState]:
        """Mean over the steps of the state and of x.

        Args:
            x: (B, L, H).
            state: sum and count of the steps before; None is none.
            lengths: (B,) integers, valid steps of each row, 1..L (0..L with a state); None is L.

        Returns:
            (B, H) in x's dtype, and the state (float32, or float64 for float64).

        Raises:
            ValueError: lengths of another shape or range.
        """
        check_sequence("MeanOverTime", x, self.d_model)
        check_kind("MeanOverTime", state, MeanState)
        if lengths is None:
            count = torch.full((len(x),), x.shape[1], device=x.device)
        else:
            count = check_lengths(lengths, x, state).clone()
            x = x.masked_fill(padding(count, x.shape[1]), 0)
        total = x.sum(1, dtype=torch.promote_types(x.dtype, torch.float32))
        if state is not None:
            total, count = state.sum + total, state.count + count
        return (total / count.clamp(min=1).unsqueeze(-1)).to(x.dtype), MeanState(total, count)

    def initial_state(
        self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> MeanState:
        """Nothing summed yet."""
        wide = torch.promote_types(dtype, torch.float32)
        total = torch.zeros(batch, self.d_model, device=device, dtype=wide)
        return MeanState(total, torch.zeros(batch, device=device, dtype=torch.long))


class LastStep(_Pool):
    """The last valid step: (B, L, H) -> (B, H)."""

    def forward(
        self, x: Tensor, state: LastState | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, LastState]:
        """The features at step ``lengths - 1``; arguments as in `MeanOverTime`. A row of length 0 keeps its state."""
        check_sequence("LastStep", x, self.d_model)
        check_kind("LastStep", state, LastState)
        if lengths is None:
            return x[:, -1], LastState(x[:, -1].clone())
        count = check_lengths(lengths, x, state)
        last = x[torch.arange(len(x), device=x.device), (count - 1).clamp(min=0)]
        if state is not None:
            last = torch.where((count > 0).unsqueeze(-1), last, state.last.to(last.dtype))
        return last, LastState(last.clone())

    def initial_state(
        self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> LastState:
        """Zeros: no step was seen yet."""
        return LastState(torch.zeros(batch, self.d_model, device=device, dtype=dtype))


class EachStep(_Pool):
    """Every step for itself, for labels at every step: (B, L, H) -> (B, L, H). Its state is empty."""

    def forward(
        self, x: Tensor, state: tuple[()] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[()]]:
        """x itself; ``lengths`` are only checked: what padding says is for the loss to leave out."""
        check_sequence("EachStep", x, self.d_model)
        if lengths is not None:
            check_lengths(lengths, x, state)
        return x, ()

    def initial_state(
        self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> tuple[()]:
        """Empty."""
        return ()


class PairDecoder(nn.Module):
    """What two sequences have to do with each other: rows a, b, a, b, ... (2 B, H) -> (B, d_output).

    ``W2 gelu(W1 [a, b, a - b, a * b])``, as for the retrieval task of the Long Range Arena.

    Args:
        d_model: H.
        d_output: logits.

    Source: Tay et al., ICLR 2021 (arXiv 2011.04006).
    """

    def __init__(self, d_model: int, d_output: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4 * d_model, d_model), nn.Linear(d_model, d_output)

    def forward(self, x: Tensor) -> Tensor:
        """(2 B, H) -> (B, d_output)."""
        a, b = x[0::2], x[1::2]
        logits: Tensor = self.outer(nn.functional.gelu(self.inner(torch.cat([a, b, a - b, a * b], -1))))
        return logits


def check_lengths(lengths: Tensor, x: Tensor, state: Any) -> Tensor:
    """The valid steps of each row on x's device, refused unless they are (B,) integers in 1..L (0..L with a state)."""
    if not isinstance(lengths, Tensor):
        raise ArgumentError(f"lengths must be a tensor, got {type(lengths).__name__}; pass torch.tensor(lengths).")
    if lengths.shape != (len(x),) or lengths.is_floating_point():
        way = "; where x has time first, pass x.transpose(0, 1)" if lengths.shape == x.shape[1:2] != x.shape[:1] else ""
        raise ValueError(
            f"lengths must be {len(x)} integers, got {lengths.dtype} of shape {tuple(lengths.shape)}{way}."
        )
    least, most = int(state is None), x.shape[1]

    def explain() -> None:
        low, high = int(lengths.min()), int(lengths.max())
        raise ValueError(f"lengths must be from {least} to {most} for {most} steps, got {low} to {high}.")

    inside = ((lengths >= least) & (lengths <= most)).all()
    if torch.compiler.is_compiling():
        torch._assert_async(inside, f"lengths must be from {least} to {most}.")
    elif has_numbers(lengths) and lengths.numel():
        demand(inside, "lengths: they are out of range, so an output", explain)
    return lengths.to(x.device)


def padding(lengths: Tensor, length: int) -> Tensor:
    """(B,) valid steps -> (B, length, 1), True at padding."""
    return (torch.arange(length, device=lengths.device) >= lengths.unsqueeze(-1)).unsqueeze(-1)


def as_pool(word: str, d_model: int) -> MeanOverTime | LastStep | EachStep:
    """The pool named "mean", "last" or "each".

    Raises:
        ValueError: another word.
    """
    pools: dict[str, type[MeanOverTime | LastStep | EachStep]] = {
        "mean": MeanOverTime,
        "last": LastStep,
        "each": EachStep,
    }
    if word not in pools:
        raise ValueError(f"pool must be one of {sorted(pools)}, got {word!r}.")
    return pools[word](d_model)
