"""From what a data set gives at each step to the channels of a network."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdn.checks.finite import at_once, demand
from sdn.checks.tracing import has_numbers
from spikingssm.layers.maps import weight_of

__all__ = ["Frames", "TokenEncoder"]


class Frames(nn.Linear):
    """A linear map of frames of ``patch`` steps that do not overlap: (B, L, d_input) -> (B, ceil(L / patch), H).

    With patch 1 it is a linear map of every step. The last frame is filled up with zeros.

    Args:
        d_input: features per step.
        d_model: H.
        patch: steps per frame, >= 1; the sequence that the layers behind see is that much shorter.

    Raises:
        ValueError: a patch below 1.
    """

    def __init__(self, d_input: int, d_model: int, patch: int = 1) -> None:
        if patch < 1:
            raise ValueError(f"SpikingSSM: patch must be at least 1 step, got {patch}.")
        super().__init__(patch * d_input, d_model)
        self.d_input, self.patch = d_input, patch

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, d_input) -> (B, ceil(L / patch), H)."""
        return super().forward(self.framed(x))

    def framed(self, x: Tensor) -> Tensor:
        """(B, L, d_input) -> the frames that the map reads, (B, ceil(L / patch), patch d_input)."""
        if self.patch == 1:
            return x
        x = functional.pad(x, (0, 0, 0, -x.shape[1] % self.patch))
        return x.reshape(len(x), -1, self.patch * self.d_input)

    def at_rate(self, rate: float) -> "Frames":
        """The same frames of a signal with a ``rate``-th of the samples: each stands for the ``rate`` that it was.

        Raises:
            ValueError: a rate that does not divide the frame.
        """
        if rate != int(rate) or rate < 1 or self.patch % int(rate):
            raise ValueError(f"SpikingSSM: a rate must divide the frame of {self.patch} steps, got {rate:g}.")
        found = Frames(self.d_input, self.out_features, self.patch // int(rate)).to(self.weight)
        grouped = self.weight.view(self.out_features, found.patch, int(rate), self.d_input)
        with torch.no_grad():
            found.weight.copy_(grouped.sum(2).flatten(1))
            found.bias.copy_(self.bias)
        return found

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{super().extra_repr()}, patch={self.patch}"


class TokenEncoder(nn.Module):
    """A vector for each token, with dropout of whole token types: (B, L) -> (B, L, H).

    Args:
        vocab: number of tokens.
        d_model: H.
        dropout: probability that a token type is zeroed everywhere in a training batch, in [0, 1).

    Raises:
        ValueError: a vocabulary below 1, or tokens outside it.

    Source: dropout of types is by Gal and Ghahramani, NeurIPS 2016 (arXiv 1512.05287).
    """

    def __init__(self, vocab: int, d_model: int, dropout: float = 0.0) -> None:
        super().__init__()
        if vocab < 1:
            raise ValueError(f"TokenEncoder: vocab must be at least 1, got {vocab}.")
        self.dropout = check_dropout(dropout)
        self.table = nn.Embedding(vocab, d_model)
        nn.init.normal_(self.table.weight, std=d_model**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L) integers -> (B, L, H)."""
        known = check_tokens(x, self.table.num_embeddings)
        table = dropped_types(weight_of(self.table), self.dropout if self.training else 0.0)
        found = functional.embedding(known, table) * self.table.embedding_dim**0.5
        return unknown(found, x, self.table.num_embeddings)


def dropped_types(table: Tensor, dropout: float) -> Tensor:
    """A table (V, d) with whole rows zeroed, the others scaled by 1/(1-dropout)."""
    if dropout == 0:
        return table
    return table * functional.dropout(table.new_ones(len(table), 1), dropout)


def check_dropout(dropout: float) -> float:
    """A probability in [0, 1), or a ValueError."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}.")
    return dropout


def check_tokens(x: Tensor, vocab: int) -> Tensor:
    """The tokens, refused outside the vocabulary, which would end in an index error.

    Where no error can be raised at once, in a graph or on a GPU, they come back as the nearest token there is, and
    `unknown` marks what is made of them as NaN.
    """
    if has_numbers(x) and x.numel():
        low, high = x.min(), x.max()
        demand(
            (low >= 0) & (high < vocab),
            "tokens: one of them is outside the vocabulary, so an output",
            lambda: _refuse(x, vocab),
        )
    return x if at_once(x) else x.clamp(0, vocab - 1)


def unknown(vectors: Tensor, x: Tensor, vocab: int) -> Tensor:
    """Vectors (..., d) of tokens (...), NaN for those outside the vocabulary."""
    if at_once(x):
        return vectors
    return vectors.masked_fill(((x < 0) | (x >= vocab)).unsqueeze(-1), torch.nan)


def _refuse(x: Tensor, vocab: int) -> None:
    raise ValueError(
        f"tokens from {int(x.min())} to {int(x.max())}, this model has a vocabulary of {vocab}: 0 to {vocab - 1}."
    )
