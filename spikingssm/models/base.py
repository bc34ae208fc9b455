"""What training, evaluation, energy and streaming may ask of a model."""

import copy
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from sdn import Solver, SpikingLayer
from sdn.checks.watched import is_watched
from spikingssm.layers.heads import EachStep, LastStep, MeanOverTime
from spikingssm.streaming.parts import no_step
from spikingssm.streaming.plan import Plan
from spikingssm.streaming.stream import Stream
from spikingssm.streaming.tensors import TensorStep

__all__ = [
    "Predictor", "SequenceModel", "able", "answers_of", "as_predictor", "blocks_of", "evaluating", "parameters_named",
    "patch_of", "placed", "pool_of", "synapses_of",
]  # fmt: skip


class SequenceModel(nn.Module):
    """A network over sequences: (B, L, C) -> logits (B, d_output) or (B, L, d_output), and a state.

    Only ``forward`` must be written. A plain ``nn.Module`` with the same ``forward`` is trained, tested and saved too.
    Whatever else it has of the names below is used as if it were a `SequenceModel`, and what it lacks has the default
    given here. A `SequenceModel` gets ``with_solver`` and ``step`` for nothing.

    Asked of the model:

    - ``forward``: training, evaluation. Needed.
    - ``step``, ``initial_state``: a stream that the user runs step by step. Nothing in this project calls them.
    - ``step_plan``: ``compile_step``, a stream in microseconds a step. Without: an error.
    - ``with_solver``: `evaluate` with another solver or with the agreement, the study solver-swap. Without: an error.
    - ``with_rate``: `evaluate` at another sampling rate. Without: an error.
    - ``pool``, or ``answers`` for a model without one: whether data, model and task go together, and in the energy
      whether the module ``decoder`` runs once a sample or at every step. Without: not checked, once a sample.
    - ``features`` and ``decoder.nll``, see `Predictor`: the task `LanguageModel`. Without: an error.
    - ``blocks``: ``trainer.strategy=fsdp`` gathers one of these modules at a time. Without: the whole model at once.

    Asked of the model and of every module in it:

    - ``synapses``: synaptic operations and energy. Without: the spikes of that module's neurons cost nothing there.
    - ``patch``: the count of spikes, where the module's ``forward`` takes ``lengths``. Without: 1.
    - ``slow_parameters``, ``plain_parameters``: names of the module's own parameters for the optimiser, slow ones with
      a smaller learning rate and no weight decay, plain ones without weight decay. Without: none.
    """

    answers: str | None = None
    """ "sequence" or "step", where a model without a ``pool`` answers; None where it does not say."""
    patch: int = 1
    """Steps of x that make up one step of the neurons, the last frame filled up."""
    slow_parameters: tuple[str, ...] = ()
    plain_parameters: tuple[str, ...] = ()

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """The whole sequence, or the next chunk of one.

        Args:
            x: (B, L, C), or tokens (B, L).
            state: before the first step; None is rest. Chunks one after another equal the whole in eval mode.
            lengths: (B,) valid steps of each row; None is L. What lies behind them must not change the logits.

        Returns:
            logits (B, d_output) or (B, L, d_output), and the state after the last step: tensors in nested tuples, or
            None for a model that cannot be continued.
        """
        raise NotImplementedError

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One step: (B, C) -> the logits (B, d_output) after it, and the state."""
        logits, state = self(x.unsqueeze(1), state)
        return (logits.squeeze(1) if logits.ndim == 3 else logits), state

    def initial_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
        """The state at rest, which None stands for too; ``dtype`` is that of x."""
        raise NotImplementedError(f"{type(self).__name__} has no initial_state; None stands for the state at rest.")

    def compile_step(self) -> Stream:
        """The network with its weights as they are now as one compiled step, for streams, in microseconds a step.

        It runs on the CPU in float32, in eval mode, with the exact neuron whatever the solver is.

        Raises:
            NotImplementedError: a part of it has no compiled step; the line names it.
        """
        return Stream(self.plan(), type(self).__name__)

    def tensor_step(self) -> TensorStep:
        """The same in plain operators of torch, on any device: what files for other programs are written from.

        Raises:
            NotImplementedError: as `compile_step`.
        """
        return TensorStep(self.plan())

    def plan(self) -> Plan:
        """What `compile_step` compiles and `spikingssm.export` writes: `step_plan` of the weights as they are now.

        Raises:
            NotImplementedError: as `compile_step`.
        """
        owner = next(kind for kind in type(self).__mro__ if {"forward", "step", "step_plan"} & vars(kind).keys())
        if "step_plan" not in vars(owner):  # it computes something else than the class that has the plan
            raise no_step(self)
        if hooked := [name for name, part in self.named_modules() if is_watched(part) and not hasattr(part, "bias")]:
            raise NotImplementedError(
                f"{hooked[0] or type(self).__name__} has hooks, which a compiled step does not run."
            )
        weight = next(self.parameters())
        plain = weight.device.type == "cpu" and weight.dtype == torch.float32
        with torch.no_grad():
            return (self if plain else copy.deepcopy(self).to("cpu", torch.float32)).step_plan()

    def step_plan(self) -> Plan:
        """What `compile_step` compiles: the layers one after the other, see `spikingssm.streaming.plan`."""
        raise no_step(self)

    def with_solver(self, solver: str | Solver) -> Self:
        """A model with the very same parameters and buffers, every layer of neurons under another solver.

        Raises:
            ValueError, NotImplementedError: the solver cannot run these neurons.
        """
        model = self.sharing()
        for part in model.modules():
            if isinstance(part, SpikingLayer):
                part.solver = solver
        return model

    def with_rate(self, rate: float) -> Self:
        """The network for data of a ``rate``-th of the sampling rate, with the very same parameters.

        Raises:
            ValueError: a network that cannot change its rate, or not by this one.
        """
        raise ValueError(_lacks(self, "with_rate"))

    def synapses(self) -> dict[str, tuple[str, ...]]:
        """The linear maps that spikes drive: a layer of neurons -> the maps at which its spikes arrive, behind skips.

        Names are those inside this module. A map is a module with ``weight`` (outputs, inputs). The model itself may
        also name the first map that reads its data, as "input".
        """
        return {}

    def sharing(self) -> Self:
        """A copy whose parameters and buffers are those of this model."""
        shared = {id(tensor): tensor for tensor in itertools.chain(self.parameters(), self.buffers())}
        return copy.deepcopy(self, shared)


class Predictor(Protocol):
    """A model of language: its decoder judges features, so that it need not form all logits."""

    class Decoder(Protocol):
        """What reads the features."""

        def nll(self, features: Tensor, labels: Tensor) -> Tensor:
            """Features (M, H) and next tokens (M,) -> negative log likelihoods in nats, (M,)."""
            ...

    decoder: Decoder

    def features(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """What the decoder reads, (B, L, H), and the state; arguments as in `SequenceModel.forward`."""
        ...


# ---- the same of any module: what it says, or the default
def able(model: nn.Module, method: str, why: str = "which is needed here") -> Any:
    """The model, if it has this method of `SequenceModel`.

    Raises:
        ValueError: it does not, and why it would be needed.
    """
    if not callable(getattr(model, method, None)):
        raise ValueError(_lacks(model, method, why))
    return model


def answers_of(model: nn.Module) -> str | None:
    """Whether a model answers once a "sequence" or at each "step"; None for one that does not say."""
    pool = pool_of(model)
    if isinstance(pool, EachStep):
        return "step"
    said = "sequence" if isinstance(pool, (MeanOverTime, LastStep)) else getattr(model, "answers", None)
    return said if said in ("sequence", "step") else None


def as_predictor(model: nn.Module) -> Predictor | None:
    """The model as one of language; None for one whose decoder cannot judge features."""
    found: Any = model
    return found if hasattr(getattr(model, "decoder", None), "nll") else None


def blocks_of(model: nn.Module) -> Iterable[nn.Module]:
    """The parts that are gathered one at a time where a model is cut up for several processes."""
    found: Iterable[nn.Module] = getattr(model, "blocks", ())
    return found


def parameters_named(module: nn.Module, names: str) -> tuple[str, ...]:
    """The module's ``slow_parameters`` or ``plain_parameters``."""
    return tuple(getattr(module, names, ()))


def patch_of(module: nn.Module) -> int:
    """Steps of x that make up one step of the neurons in a module."""
    found = getattr(module, "patch", 1)
    return 1 if isinstance(found, nn.Module) else int(found)  # a part of that name is no number


def placed(model: nn.Module, x: Tensor) -> Tensor:
    """Data on the device of a model's weights and, where both are floating-point, in their precision."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), x)
    return x.to(weight.device, weight.dtype if x.is_floating_point() else x.dtype)


def pool_of(model: nn.Module) -> nn.Module | None:
    """What goes from features at every step to those that the decoder reads; None for a model without."""
    pool = getattr(model, "pool", None)
    return pool if isinstance(pool, nn.Module) else None


def synapses_of(module: nn.Module) -> dict[str, tuple[str, ...]]:
    """The maps that spikes drive, by the names in a module, see `SequenceModel.synapses`."""
    say = getattr(type(module), "synapses", None)  # a part of that name says nothing
    return dict(say(module)) if say else {}


def _lacks(model: nn.Module, method: str, why: str = "which is needed here") -> str:
    return f"{type(model).__name__} has no {method}, {why}."


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; then every module has the mode again that it had, one that was frozen too."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
