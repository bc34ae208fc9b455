"""What is exported: a network as a plan, with what is known of it, and the steps that every file is tested with."""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from spikingssm.experiments.trained import TrainedModel
from spikingssm.measures.spikes import neurons_of, spikes_of
from spikingssm.models.base import able, evaluating, patch_of, placed
from spikingssm.streaming.plan import Plan
from spikingssm.streaming.stream import Stream
from spikingssm.streaming.tensors import TensorStep

__all__ = ["Answers", "Subject", "Vectors", "by_steps", "by_stream", "compared", "subject", "vectors"]

Array = np.ndarray[Any, Any]
FORBIDDEN = r"[^\w .+-]|^[.]+"
"""What the name of a file may not have in it: it stands in paths, and in the comments of a C file."""
LONGEST = 100
WAY = "which says what a step of it does; give a SpikingSSM, an S5RF, an RSNN, or a model of yours with step_plan"


@dataclass(frozen=True)
class Subject:
    """A network to export.

    Args:
        name: of the files.
        model: the network, in eval mode.
        plan: its step.
        trained: where it comes from a run, the whole of it; else None.
    """

    name: str
    model: nn.Module
    plan: Plan
    trained: TrainedModel | None

    @property
    def exact(self) -> nn.Module:
        """The network with the exact neuron, which is what is exported."""
        kinds = {type(part.solver).__name__ for part in neurons_of(self.model).values()}
        found: nn.Module = able(self.model, "with_solver").with_solver("fused") if "Surrogate" in kinds else self.model
        return found


def subject(source: nn.Module, name: str | None = None) -> Subject:
    """A model or a trained run as what is exported.

    Args:
        source: a `SequenceModel` or a `TrainedModel`.
        name: of the files; None is that of the run, or of the class.

    Raises:
        NotImplementedError: a network without a compiled step; the line says which part and why.
        ValueError: a module that has no plan at all.
    """
    trained = source if isinstance(source, TrainedModel) else None
    model: nn.Module = source if trained is None else trained.network
    plan = able(model, "plan", WAY).plan()
    own = trained.config["name"] if trained is not None else type(model).__name__.lower()
    if name is not None and (re.sub(FORBIDDEN, "", name) != name or not name.strip() or len(name) > LONGEST):
        raise ValueError(
            f"export: name must be a plain file name of up to {LONGEST} letters, digits, spaces and .-+_, got {name!r}."
        )
    return Subject(name or re.sub(FORBIDDEN, "-", own)[:LONGEST], model, plan, trained)


@dataclass(frozen=True)
class Answers:
    """What a network gives for `Vectors`.

    Args:
        logits: after every step, (L, d_output) float32.
        spikes: of each layer, (L, neurons) uint8; or (neurons,) int64 sums where a file gives no more.
        states: after the last step, name -> (n,).
    """

    logits: Array
    spikes: dict[str, Array]
    states: dict[str, Array]


class Vectors(NamedTuple):
    """Steps that a network is tested with, and what it must answer.

    Args:
        x: (L, d_input) float32, or tokens (L, 1) int64: what `TrainedModel.prepare` would give.
        answers: of the network.
        seed: of x.
        whole: how the answers differ from those of the network over the whole sequence at once, see `compared`.
    """

    x: Array
    answers: Answers
    seed: int
    whole: dict[str, Any]


def vectors(what: Subject, steps: int = 1000, seed: int = 0) -> Vectors:
    """Test vectors of a network: noise of mean 0 and deviation 1, or tokens, and the answers of its step in torch.

    Args:
        what: the network.
        steps: L, >= 1; of a network of frames, as many frames.
        seed: of the noise.

    Raises:
        ValueError: no steps.
    """
    if steps < 1:
        raise ValueError(f"export: steps must be at least 1, got {steps}.")
    draw = np.random.default_rng(seed)
    x: Array = draw.standard_normal((steps, what.plan.d_input)).astype(np.float32)
    if what.plan.vocab is not None:
        x = draw.integers(what.plan.vocab, size=(steps, 1))
    answers = by_steps(TensorStep(what.plan), x)
    return Vectors(x, answers, seed, compared(_whole(what, x), answers))


@torch.no_grad()
def by_steps(step: Any, x: Array) -> Answers:
    """Answers of anything that is called as `TensorStep` is, with the names of its states and layers."""
    states = step.initial_state(1)
    logits, spikes = [], []
    for row in torch.from_numpy(x).unbind(0):
        answer, *rest = step(row[None], *states)
        states = tuple(rest[: len(states)])
        logits.append(answer[0])
        spikes.append([each[0].to(torch.uint8) for each in rest[len(states) :]])
    fired = {
        name: torch.stack(each).numpy() for name, each in zip(step.spike_names, zip(*spikes, strict=True), strict=True)
    }
    after = {name: each[0].numpy() for name, each in zip(step.state_names, states, strict=True)}
    return Answers(torch.stack(logits).numpy(), fired, after)


@torch.no_grad()
def _whole(what: Subject, x: Array) -> Answers:
    """The network over the whole sequence at once, by its own fast path; logits of the last step, or of each."""
    exact = what.exact
    given = torch.from_numpy(x)  # (steps, patch d_input), or tokens (steps, 1)
    steps = len(x) * patch_of(exact)
    given = given.reshape(1, steps) if what.plan.vocab is not None else given.reshape(1, steps, -1)
    with evaluating(exact):
        given = placed(exact, given)
        logits = exact(given)[0].float().cpu().numpy()
        spikes = {name: each[0].to(torch.uint8).cpu().numpy() for name, each in spikes_of(exact, given).items()}
    return Answers(logits[0] if logits.ndim == 3 else logits, spikes, {})


def by_stream(plan: Plan, x: Array) -> Answers:
    """Answers of the compiled step; its spikes are sums."""
    stream = Stream(plan, "network")
    state = stream.initial_state()
    logits = stream.run(x.astype(np.float32), state)
    return Answers(logits, stream.spikes(state), {})


def compared(wanted: Answers, found: Answers) -> dict[str, Any]:
    """How two answers differ: the spikes, and the logits of those steps that both have, from the last one backwards.

    Returns:
        ``spikes`` of all layers as wanted, ``spikes_that_differ``, ``logits_difference``: the largest, and
        ``logits_largest``.
    """
    steps = min(len(wanted.logits), len(found.logits))
    one, other = wanted.logits[-steps:], found.logits[-steps:]
    differ = 0
    for name, each in wanted.spikes.items():
        mine = found.spikes[name]
        if mine.shape == each.shape:
            differ += int((mine != each).sum())
        else:  # sums
            differ += int(np.abs(each.sum(dtype=np.int64) - mine.sum(dtype=np.int64)))
    return {
        "steps": len(found.logits),
        "spikes": sum(int(each.sum(dtype=np.int64)) for each in wanted.spikes.values()),
        "spikes_that_differ": differ,
        "logits_difference": float(np.abs(one - other).max()),
        "logits_largest": float(np.abs(one).max()),
    }
