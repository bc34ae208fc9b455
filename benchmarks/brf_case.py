"""What suite ``brf`` compares: recurrent BRF networks that fire, and the ways to run one."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import sdn
from benchmarks.brf_reference import PublishedBRF
from benchmarks.harness import Run
from spikingssm.models import RSNN

__all__ = ["EAGER", "OURS", "RATES", "SCRIPTED", "SIZES", "VARIANTS", "Case", "Size", "Variant"]
__all__ += ["build", "case", "errors", "forward", "training_step"]

OURS = ("fused", "loop")
EAGER, SCRIPTED = "published, eager", "published, scripted"
VARIANTS = (*OURS, EAGER, SCRIPTED)
RATES = (0.03, 0.1)
"""Spikes per neuron and step."""
CLOSE = 0.05
"""Relative distance from such a rate that will do."""
RECURRENT = 10.0
"""Standard deviation of what the other neurons send; with much more, activity keeps itself alive without an input."""


@dataclass(frozen=True)
class Size:
    """One network and its batch.

    Args:
        omega, b_offset: ranges of their starts, as published for the task.
        pool: "last" for the loss of the last step, "each" for that of every step.
        density: share of ones in the input; None for uniform numbers.
    """

    d_input: int
    d_output: int
    d_model: int
    batch: int
    length: int
    omega: tuple[float, float]
    b_offset: tuple[float, float]
    pool: str = "each"
    density: float | None = None

    @property
    def elements(self) -> int:
        """Neuron steps of one training step."""
        return self.batch * self.length * self.d_model

    def tiny(self) -> "Size":
        """The same form, as small as it gets."""
        return replace(self, d_input=min(self.d_input, 20), d_model=8, batch=2, length=50)


MNIST = Size(1, 10, 256, 64, 784, (15.0, 50.0), (0.1, 1.0), "last")
SIZES = {
    "smnist 64": MNIST,
    "smnist 256": replace(MNIST, batch=256),
    "ecg 16": Size(4, 6, 36, 16, 1300, (3.0, 5.0), (0.1, 1.0), density=0.078),
    "shd 32": Size(700, 20, 128, 32, 250, (5.0, 10.0), (2.0, 3.0), density=0.01),
}


@dataclass(frozen=True)
class Case:
    """A network that fires, and its batch: x (B, L, d_input), labels (B,) or (B, L)."""

    size: Size
    model: RSNN
    x: Tensor
    labels: Tensor

    def until(self, step: int) -> "Case":
        """The same with the first steps only."""
        return replace(self, x=self.x[:, :step], labels=self.labels if self.labels.ndim == 1 else self.labels[:, :step])

    def to(self, device: str) -> "Case":
        """The same on another device."""
        model = _model(self.size, "fused").to(device, self.x.dtype)
        model.load_state_dict(self.model.state_dict())
        return replace(self, model=model, x=self.x.to(device), labels=self.labels.to(device))


class Variant(NamedTuple):
    """One way to run a case, with parameters of its own: what it computes, in the axes of our network."""

    model: nn.Module
    loss: Callable[[], Tensor]
    spikes: Callable[[], Tensor]
    gradients: Callable[[], dict[str, Tensor]]


def errors(given: Case, name: str, device: str | None = None) -> dict[str, Any]:
    """A variant against the published network: spikes until they differ, gradients on the steps before.

    Args:
        given: the case.
        name: the variant.
        device: where the published one runs; None is the case's own.

    Returns:
        ``spikes`` and ``rate`` of the published one, ``flips`` (entries that differ), ``first_flip`` (its step, or
        None), ``loss_error``, and ``gradient_error``: the largest of a parameter over its largest gradient; infinite
        where the very first step differs.
    """
    published = given if device is None else given.to(device)
    with torch.no_grad():
        want, got = build(EAGER, published).spikes().cpu(), build(name, given).spikes().cpu()
    differ = want != got
    steps = differ.any(2).any(0).nonzero()
    first = int(steps[0]) if len(steps) else None
    found = {"spikes": int(want.sum()), "rate": want.mean().item(), "flips": int(differ.sum()), "first_flip": first}
    if first == 0:
        return {**found, "loss_error": math.inf, "gradient_error": math.inf}
    until = first or given.size.length
    loss, grads = _passes(EAGER, published.until(until))
    other, theirs = _passes(name, given.until(until))
    worst = max(((theirs[n] - g).abs().max() / g.abs().max()).item() for n, g in grads.items())
    return {**found, "loss_error": abs(other - loss), "gradient_error": worst}


def case(size: Size, rate: float, dtype: torch.dtype = torch.float32) -> Case:
    """A network of this size whose first few rows fire at this rate; and a batch."""
    torch.manual_seed(0)
    shape = (size.batch, size.length, size.d_input)
    x = (torch.rand(shape) if size.density is None else (torch.rand(shape) < size.density).float()).to(dtype)
    labels = torch.randint(size.d_output, shape[:1] if size.pool == "last" else shape[:2])
    model = _model(size, "fused").to(dtype)
    weight, inner = model.layers[0].input.weight, model.layers[0].recurrent.weight
    with torch.no_grad():
        inner *= RECURRENT / (inner.std() * math.sqrt(rate * size.d_model))
        start, low, high = weight.clone(), 0.0, 16.0  # of the logarithm of a factor
        found = math.inf
        while (
            abs(found - rate) > CLOSE * rate and high - low > 1e-3
        ):  # no closer: a potential would be at its threshold
            middle = (low + high) / 2
            weight.copy_(math.exp(middle) * start)
            found = model.layers[0](x[:4])[0].mean().item()
            low, high = (middle, high) if found < rate else (low, middle)
    return Case(size, model, x, labels)


def build(name: str, given: Case) -> Variant:
    """One of `VARIANTS` on a case."""
    if name in OURS:
        model = _model(given.size, name).to(given.x.device, given.x.dtype)
        model.load_state_dict(given.model.state_dict())
        return Variant(
            model,
            lambda: _loss(model(given.x)[0], given.labels),
            lambda: model.layers[0](given.x)[0],
            lambda: {n: p.grad for n, p in model.named_parameters() if p.grad is not None},
        )
    theirs = PublishedBRF.sharing(given.model, scripted=name == SCRIPTED)
    x = given.x.transpose(0, 1).contiguous()
    labels = given.labels if given.labels.ndim == 1 else given.labels.T.contiguous()

    def loss() -> Tensor:
        out = theirs(x)
        return _loss(out[-1] if labels.ndim == 1 else out, labels)

    return Variant(theirs, loss, lambda: theirs.spikes(x).transpose(0, 1), theirs.gradients)


def training_step(name: str, given: Case, warm: bool = True) -> Run:
    """Forward, loss and backward of a variant; ``warm`` runs a script until it is compiled."""
    made = build(name, given)

    def step() -> None:
        made.loss().backward()
        made.model.zero_grad(set_to_none=True)

    return _warm(name, step) if warm else step


def forward(name: str, given: Case) -> Run:
    """Forward and loss of a variant, without gradients."""
    made = build(name, given)

    def only() -> None:
        with torch.no_grad():
            made.loss()

    return _warm(name, only)


def _warm(name: str, step: Run) -> Run:
    """A script is compiled in its first two runs."""
    for _ in range(2 if name == SCRIPTED else 0):
        step()
    return step


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy: (..., C) against (...)."""
    return nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


def _passes(name: str, given: Case) -> tuple[float, dict[str, Tensor]]:
    made = build(name, given)
    loss = made.loss()
    loss.backward()
    return loss.item(), {n: g.cpu() for n, g in made.gradients().items()}


def _model(size: Size, solver: str) -> RSNN:
    learn = {"omega": sdn.uniform(*size.omega), "b_offset": sdn.uniform(*size.b_offset)}
    dynamics = sdn.BRF()
    return RSNN(
        size.d_input, size.d_output, size.d_model, dynamics=dynamics, learn=learn, pool=size.pool, solver=solver,
        start="published",
    )  # fmt: skip
