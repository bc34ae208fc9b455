"""SpikingSSM: encoder, residual spiking blocks, pooling, decoder."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from sdn import LIF, Dynamics, Solver, SpikeGradient
from sdn.checks.arguments import Spelled, check_count, check_kind, check_tensor
from sdn.checks.axes import check_dtype, mend, mend_step
from sdn.checks.trees import as_tree
from sdn.checks.words import MODEL_WORDS
from spikingssm.layers.block import BlockState, Residual, SpikingBlock
from spikingssm.layers.encoders import Frames, TokenEncoder
from spikingssm.layers.heads import PairDecoder, as_pool, check_lengths, padding
from spikingssm.layers.maps import weight_of
from spikingssm.layers.s4d import S4D
from spikingssm.layers.vocabulary import AdaptiveVocabulary, Vocabulary
from spikingssm.models.base import SequenceModel
from spikingssm.models.silence import warn_if_silent
from spikingssm.streaming.parts import add_linear, add_pool, add_residual, add_vectors, no_step
from spikingssm.streaming.plan import Plan

__all__ = ["SpikingSSM", "SpikingSSMState"]


@as_tree
class SpikingSSMState(NamedTuple):
    """One state per block, and the pool's."""

    blocks: tuple[BlockState, ...]
    pool: Any


class SpikingSSM(Spelled, SequenceModel):
    """Spiking state space network for long sequences: (B, L, d_input) -> logits (B, d_output), or (B, L, d_output).

    Encoder, ``n_layers`` residual `SpikingBlock`, pooling over time, decoder. The residual stream is real valued;
    spikes are what the linear map of every block reads. With ``vocab`` the input is tokens (B, L); with ``pairs`` two
    of them, (B, 2, L), which go through the same layers and meet in the decoder; with ``vocab`` and pool "each" the
    network is a language model with one (or an adaptive) table of vectors for input and output.

    Sizes, the only arguments without a name in front:
        d_input: features per step; 1 with ``vocab``.
        d_output: logits.
        d_model: H.
        n_layers: blocks, >= 1.
        d_state: N of every S4D, even.

    Neurons:
        dynamics: what one neuron does in a step.
        solver: runs them: "surrogate" (the shipped artifact), "fused", "parallel", "loop", or a value such as
            ``Surrogate(path)``.
        spike: spike gradient; None is the dynamics' own.
        learn_threshold: learn one threshold per channel and block.
        learn: further fields of the neuron that are learned so, such as ["decay"].

    State space layers, see `S4D`:
        bidirectional: blocks that see the future too; such a model cannot stream.
        algorithm: how they run, "recurrence", "fft" or "auto".
        learn_b: learn the input map B.
        dt_min, dt_max: range of the steps at the start.

    Around them, see `Residual`:
        norm, prenorm, norm_as_published: which norm, where, and whether its result goes nowhere.
        dropout: after the neurons and on every branch, tied over time, in [0, 1).

    Input and output:
        pool: "mean" over time, "last" step, or "each" (logits at every step).
        patch: steps that the encoder reads at once, >= 1: the layers then see ceil(L / patch) frames. Chunks of a
            stream must be whole frames, and `step` takes a frame. Not with pool "each", nor with tokens.
        vocab: number of different tokens; None is features.
        pairs: whether the input is pairs of token sequences.
        embedding_dropout: of token types.

    Output of a language model, which is ``vocab`` with pool "each":
        output_dropout: on what its output reads.
        cutoffs, div_value: of the adaptive softmax, see `AdaptiveVocabulary`; None is a full one.

    Raises:
        ValueError: a size below 1, an unknown word, options that do not go together, or what the parts refuse.

    Source: Shen et al., AAAI 2025 (arXiv 2408.14909). Where we differ from its code: post-norm is applied, an unknown
    norm is refused, networks of the surrogate solver are neither parameters nor saved with the model.
    """

    spellings = MODEL_WORDS
    encoder: Any
    blocks: Sequence[Residual]
    decoder: Any

    def __init__(
        self,
        d_input: int,
        d_output: int,
        d_model: int = 128,
        n_layers: int = 4,
        d_state: int = 64,
        *,
        # neurons
        dynamics: Dynamics = LIF(decay=0.125),  # noqa: B008
        solver: str | Solver = "surrogate",
        spike: SpikeGradient | None = None,
        learn_threshold: bool = True,
        learn: Sequence[str] = (),
        # state space layers
        bidirectional: bool = False,
        algorithm: str = "auto",
        learn_b: bool = False,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        # around them
        norm: str = "layer",
        prenorm: bool = False,
        norm_as_published: bool = False,
        dropout: float = 0.1,
        # input and output
        pool: str = "mean",
        patch: int = 1,
        vocab: int | None = None,
        pairs: bool = False,
        embedding_dropout: float = 0.0,
        # output of a language model
        output_dropout: float = 0.0,
        cutoffs: Sequence[int] | None = None,
        div_value: float = 4.0,
    ) -> None:
        super().__init__()
        sizes = {"d_input": d_input, "d_output": d_output, "d_model": d_model, "n_layers": n_layers}
        for name, size in sizes.items():
            check_count("SpikingSSM", name, size)
        language = vocab is not None and pool == "each"
        _check_together(patch, pool, vocab, pairs, language, cutoffs, output_dropout, embedding_dropout, bidirectional)
        self.d_input, self.d_output, self.bidirectional = d_input, d_output, bidirectional
        self.vocab, self.pairs, self.patch, self.language = vocab, pairs, patch, language
        neuron: dict[str, Any] = {"solver": solver, "spike": spike, "learn_threshold": learn_threshold, "learn": learn}
        ssm: dict[str, Any] = {"bidirectional": bidirectional, "algorithm": algorithm, "learn_b": learn_b}
        ssm |= {"dt_min": dt_min, "dt_max": dt_max}
        around: dict[str, Any] = {"norm": norm, "prenorm": prenorm, "norm_as_published": norm_as_published}
        if vocab is None:
            self.encoder = Frames(d_input, d_model, patch)
        elif not language:  # whose table is its decoder's
            self.encoder = TokenEncoder(vocab, d_model, embedding_dropout)
        blocks = []
        for _ in range(n_layers):
            block = SpikingBlock(dynamics, d_model, d_state, dropout=dropout, **neuron, **ssm)
            blocks.append(Residual(block, d_model, dropout=dropout, **around))
        self.blocks = nn.ModuleList(blocks)  # type: ignore[assignment]  # whose types leave out what it holds
        self.pool = as_pool(pool, d_model)
        if vocab is not None and language:
            drops = {"embedding_dropout": embedding_dropout, "output_dropout": output_dropout}
            adaptive = AdaptiveVocabulary(vocab, d_model, cutoffs, div_value=div_value, **drops) if cutoffs else None
            self.decoder = adaptive or Vocabulary(vocab, d_model, **drops)
        else:
            self.decoder = PairDecoder(d_model, d_output) if pairs else nn.Linear(d_model, d_output)

    def forward(
        self, x: Tensor, state: SpikingSSMState | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, SpikingSSMState | None]:
        """The whole sequence, or the next chunk of one.

        Args:
            x: (B, L, d_input); tokens (B, L) or (B, 2, L).
            state: state before the first step; None is rest. Chunks one after another equal the whole in eval mode.
            lengths: (B,) integers, valid steps of each row, 1..L; (B, 2) for pairs; None is L. What lies behind them
                changes no logits (with "each": no logits before them).

        Returns:
            logits (B, d_output), or (B, L, d_output) with pool "each" (log probabilities with ``cutoffs``), and the
            state after the last step: None if bidirectional; without the S4D parts in training from rest by FFT, see
            `S4D.forward`.

        Raises:
            ValueError: x, state or lengths of another shape or range.
        """
        pooled, after = self.features(x, state, lengths)
        logits = self.decoder(pooled)
        warn_if_silent(self, x, logits, state is None)
        return logits, after

    def features(
        self, x: Tensor, state: SpikingSSMState | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, SpikingSSMState | None]:
        """What the decoder reads, (B, H), (2 B, H) for pairs or (B, L, H), and the state; arguments as in `forward`."""
        x, lengths = self._checked(x, lengths, state)
        if state is not None and self.patch > 1 and x.shape[1] % self.patch:
            found = f"a chunk of {x.shape[1]} steps is no whole number of frames of {self.patch}"
            raise ValueError(f"SpikingSSM: {found}; cut the stream at whole frames.")
        if lengths is not None and self.patch > 1:
            x = x.masked_fill(padding(lengths, x.shape[1]), 0)  # the last frame reads padding too
        h, states = self._encode(x), []
        lengths = None if lengths is None else -(-lengths // self.patch)
        valid = ~padding(lengths, h.shape[1]) if lengths is not None else None
        for i, block in enumerate(self.blocks):
            h, after = block(h, None if state is None else state.blocks[i], valid)
            states.append(after)
        pooled, pool = self.pool(h, None if state is None else state.pool, lengths)
        return pooled, None if self.bidirectional else SpikingSSMState(tuple(states), pool)

    def step(self, x: Tensor, state: SpikingSSMState | None = None) -> tuple[Tensor, SpikingSSMState]:
        """One step: (B, d_input) -> the logits of the prefix so far (B, d_output) and the state.

        With ``patch`` a step is a frame (B, patch, d_input); with tokens (B,), with pairs (B, 2).

        Raises:
            NotImplementedError: a bidirectional model, which needs the steps to come.
            ValueError: x or state of another shape.
        """
        check_tensor("SpikingSSM", "x", x)
        frame: tuple[int, ...] = (self.patch, self.d_input) if self.patch > 1 else (self.d_input,)
        frame = frame if self.vocab is None else (2,) if self.pairs else ()
        if x.shape[1:] != frame or not x.ndim:
            shape = ", ".join(map(str, ("batch", *frame)))
            way = mend_step(x, self.d_input) if self.vocab is None and self.patch == 1 else ""
            raise ValueError(f"SpikingSSM: a step must be ({shape}), got shape {tuple(x.shape)}{way}.")
        self._check_state(state)
        x = x.flatten().unsqueeze(1) if self.vocab is not None else x.reshape(len(x), -1, self.d_input)
        h, states = self._encode(x).squeeze(1), []
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
        batch = 2 * batch if self.pairs else batch
        blocks = tuple(block.initial_state(batch, device, dtype) for block in self.blocks)
        return SpikingSSMState(blocks, self.pool.initial_state(batch, device, dtype))

    def with_rate(self, rate: float) -> Self:
        """The network for data of a ``rate``-th of the sampling rate, with the very same parameters.

        Its state space layers take ``rate`` times as long steps; the neurons still decay once a step. A network of
        frames reads frames of as many samples fewer instead, and nothing behind its encoder changes: its encoder is a
        copy, see `Frames.at_rate`.

        Raises:
            ValueError: a rate that is not positive, or that does not divide the frames.
        """
        if not 0 < rate < math.inf:
            raise ValueError(f"SpikingSSM: rate must be > 0, got {rate}.")
        model = self.sharing()
        if self.patch > 1:
            model.encoder = self.encoder.at_rate(rate)
            model.patch = model.encoder.patch
            return model
        for part in model.modules():
            if isinstance(part, S4D):
                part.rate = part.rate * rate
        return model

    def step_plan(self) -> Plan:
        """See `SequenceModel.step_plan`; a step of a network of frames reads a frame, (patch d_input)."""
        if self.bidirectional or self.pairs:
            why = "a bidirectional network needs the steps to come" if self.bidirectional else "pairs are two sequences"
            raise NotImplementedError(f"SpikingSSM: {why}, so it has no compiled step.")
        if not isinstance(self.decoder, (nn.Linear, Vocabulary)):
            raise no_step(self.decoder)
        plan = Plan(self.patch * self.d_input if self.vocab is None else 1, self.d_output, self.vocab)
        h = add_vectors(plan, self.decoder if self.language else self.encoder, plan.x)
        for i, block in enumerate(self.blocks):
            h = add_residual(plan, block, f"blocks.{i}", h)
        weight = self.decoder.table if isinstance(self.decoder, Vocabulary) else weight_of(self.decoder)
        add_linear(plan, add_pool(plan, self.pool, h), weight, self.decoder.bias, plan.out)
        return plan

    def _encode(self, x: Tensor) -> Tensor:
        h: Tensor = self.decoder.embed(x) if self.language else self.encoder(x)
        return h

    def _checked(self, x: Tensor, lengths: Tensor | None, state: Any) -> tuple[Tensor, Tensor | None]:
        """x and lengths as the layers take them, pairs as rows of their own."""
        check_tensor("SpikingSSM", "x", x)
        tokens = self.vocab is not None
        fits = x.shape[-1] == self.d_input and x.is_floating_point() and x.ndim == 3
        if tokens:
            fits = not x.is_floating_point() and (x.ndim == 3 and x.shape[1] == 2 if self.pairs else x.ndim == 2)
        if not fits or not x.numel():
            way = self._way(x)
            kind = f"a floating-point (batch, length, {self.d_input})"
            kind = f"integers (batch, {'2, ' if self.pairs else ''}length)" if tokens else kind
            raise ValueError(
                f"SpikingSSM: x must be {kind}, batch and length >= 1, got {x.dtype} of shape {tuple(x.shape)}{way}."
            )
        if not tokens:
            check_dtype("SpikingSSM", "x", x, getattr(self.encoder, "weight", None))
        self._check_state(state)
        if self.pairs:
            x, lengths = x.flatten(0, 1), None if lengths is None else lengths.flatten()
        return x, None if lengths is None else check_lengths(lengths, x, state)

    def _way(self, x: Tensor) -> str:
        """How to make of x what the model reads, for the end of a message."""
        if self.vocab is None:
            return mend(x, self.d_input)
        if x.ndim == (4 if self.pairs else 3) and x.shape[-1] == 1:
            return "; pass x.squeeze(-1)"
        return "; tokens are whole numbers, convert them with x.long()" if x.is_floating_point() else ""

    def _check_state(self, state: SpikingSSMState | None) -> None:
        check_kind("SpikingSSM", state, SpikingSSMState)
        if state is not None and len(state.blocks) != len(self.blocks):
            raise ValueError(
                f"SpikingSSM: the state has {len(state.blocks)} blocks, this model has {len(self.blocks)}."
            )


def _check_together(
    patch: int,
    pool: str,
    vocab: int | None,
    pairs: bool,
    language: bool,
    cutoffs: Sequence[int] | None,
    output_dropout: float,
    embedding_dropout: float,
    bidirectional: bool,
) -> None:
    """Refuse options that do not go together."""
    if patch != 1 and (pool == "each" or vocab is not None):
        what = "pool='each', which answers at every step" if vocab is None else "tokens, which are read one by one"
        raise ValueError(f"SpikingSSM: patch={patch} does not go with {what}; use patch=1.")
    if pairs and (vocab is None or language):
        raise ValueError("SpikingSSM: pairs are of token sequences with one answer; give vocab, and pool mean or last.")
    if not language and (cutoffs or output_dropout):
        raise ValueError("SpikingSSM: cutoffs and output_dropout are a language model's: token data with pool='each'.")
    if vocab is None and embedding_dropout:
        raise ValueError(f"SpikingSSM: embedding_dropout={embedding_dropout} needs tokens; the input is features.")
    if language and bidirectional:
        raise ValueError(
            "SpikingSSM: a language model must not see the token that it is asked for; use bidirectional=False."
        )
