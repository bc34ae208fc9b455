"""Language models' end: the probability of the next token, for small and for very large vocabularies."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdn.checks.precision import in_full_precision
from sdn.checks.watched import is_watched
from spikingssm.layers.encoders import check_dropout, check_tokens, dropped_types, unknown
from spikingssm.layers.maps import weight_of

__all__ = ["AdaptiveVocabulary", "Vocabulary"]


class Vocabulary(nn.Module):
    """One table of token vectors, for input and, with a bias, for output: tied weights.

    Args:
        vocab: number of tokens V.
        d_model: H.
        embedding_dropout: probability that a token type is zeroed in the input of a training batch.
        output_dropout: on the features that the output reads.

    Raises:
        ValueError: a dropout out of [0, 1).

    Source: Press and Wolf, EACL 2017 (arXiv 1608.05859).
    """

    def __init__(
        self, vocab: int, d_model: int, *, embedding_dropout: float = 0.0, output_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.vocab, self.d_model = vocab, d_model
        self.embedding_dropout, self.output_dropout = check_dropout(embedding_dropout), check_dropout(output_dropout)
        self.table = nn.Parameter(torch.randn(vocab, d_model) * d_model**-0.5)
        self.bias = nn.Parameter(torch.zeros(vocab))

    def embed(self, x: Tensor) -> Tensor:
        """Tokens (B, L) -> (B, L, H), of variance 1 at the start."""
        known = check_tokens(x, self.vocab)
        if is_watched(self):
            self(self.bias.new_zeros(0, self.d_model))  # without features: for what renews the table
        table = dropped_types(self.table, self.embedding_dropout if self.training else 0.0)
        return unknown(functional.embedding(known, table) * self.d_model**0.5, x, self.vocab)

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., H) -> logits (..., V)."""
        features = functional.dropout(features, self.output_dropout, self.training)
        return functional.linear(features, self.table, self.bias)

    def nll(self, features: Tensor, labels: Tensor) -> Tensor:
        """Features (M, H) and next tokens (M,) -> negative log likelihoods in nats, (M,)."""
        logits = self(features)
        wide = torch.promote_types(logits.dtype, torch.float32)
        return functional.cross_entropy(logits.to(wide), labels, reduction="none")


class AdaptiveVocabulary(nn.Module):
    """An adaptive softmax whose tables are the adaptive input embedding too; tokens must be sorted by frequency.

    The ``cutoffs[0]`` most frequent tokens have vectors of H numbers; each further cluster has vectors shorter by
    ``div_value``, a map from and to H, and costs time only when one of its tokens is asked for.

    Args:
        vocab: number of tokens V.
        d_model: H.
        cutoffs: ends of the clusters but the last, rising, below V.
        div_value: by which the vectors of a cluster are shorter than those of the one before.
        embedding_dropout: as in `Vocabulary`.
        output_dropout: as in `Vocabulary`.

    Raises:
        ValueError: cutoffs that do not rise below V, vectors that would have no number left, or a dropout out of range.

    Source: Grave et al., ICML 2017 (arXiv 1609.04309), by torch's own module; tied input of Baevski and Auli, ICLR 2019
    (arXiv 1809.10853), with the maps tied as well, as in Transformer-XL (arXiv 1901.02860).
    """

    def __init__(
        self,
        vocab: int,
        d_model: int,
        cutoffs: Sequence[int],
        *,
        div_value: float = 4.0,
        embedding_dropout: float = 0.0,
        output_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        cutoffs = [int(c) for c in cutoffs]
        if not cutoffs or cutoffs != sorted({*cutoffs}) or cutoffs[0] < 1 or cutoffs[-1] >= vocab:
            raise ValueError(
                f"cutoffs must rise between 1 and the vocabulary of {vocab}, got {cutoffs}; set model.cutoffs to "
                "smaller ones, or to null for a full softmax."
            )
        if d_model // div_value ** len(cutoffs) < 1:
            raise ValueError(f"{len(cutoffs)} cutoffs by {div_value} leave no number of d_model {d_model}; use fewer.")
        self.vocab, self.d_model, self.ends = vocab, d_model, [*cutoffs, vocab]
        self.embedding_dropout, self.output_dropout = check_dropout(embedding_dropout), check_dropout(output_dropout)
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(d_model, vocab, cutoffs, div_value=div_value, head_bias=True)
        nn.init.normal_(self.softmax.head.weight, std=d_model**-0.5)
        for down, out in self._clusters():
            nn.init.normal_(out.weight, std=out.in_features**-0.5)
            nn.init.normal_(down.weight, std=down.in_features**-0.5)

    def _clusters(self) -> list[tuple[nn.Linear, nn.Linear]]:
        """Of each cluster but the first: the map to its short vectors, and their table."""
        tail: Any = self.softmax.tail
        return [(down, up) for down, up in tail]

    def embed(self, x: Tensor) -> Tensor:
        """Tokens (B, L) -> (B, L, H), of variance 1 at the start."""
        given, x = x, check_tokens(x, self.vocab)
        dropout = self.embedding_dropout if self.training else 0.0
        first = self.ends[0]
        table = dropped_types(weight_of(self.softmax.head)[:first], dropout)
        out = functional.embedding(x.clamp(max=first - 1), table) * math.sqrt(self.d_model)
        for (down, up), start, stop in zip(self._clusters(), self.ends, self.ends[1:], strict=False):
            inside = (x >= start) & (x < stop)
            vectors = functional.embedding(x[inside] - start, dropped_types(weight_of(up), dropout))
            far = functional.linear(vectors, weight_of(down).mT) * math.sqrt(self.d_model)
            out = out.masked_scatter(inside.unsqueeze(-1), far.to(out.dtype))
        return unknown(out, given, self.vocab)

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., H) -> log probabilities (..., V)."""
        features = functional.dropout(features, self.output_dropout, self.training)
        return self.softmax.log_prob(features.reshape(-1, self.d_model)).reshape(*features.shape[:-1], self.vocab)

    def nll(self, features: Tensor, labels: Tensor) -> Tensor:
        """Features (M, H) and next tokens (M,) -> negative log likelihoods in nats, (M,)."""
        if not len(labels):
            return features.sum(-1)
        with in_full_precision(features):  # torch's module mixes types under autocast
            features = features.to(self.softmax.head.weight.dtype)
            dropped = functional.dropout(features, self.output_dropout, self.training)
            likely: Tensor = self.softmax(dropped, labels).output
            return -likely
