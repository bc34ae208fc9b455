"""Suite ``s5rf``: training steps of S5-RF against the same network with a tree for its scan, in torch and in JAX.

A step is forward, cross entropy, backward, AdamW with the published two groups at a learning rate of 0, so that every
step is one of the same network. Its dense weights are scaled so that a tenth of the potentials of each layer is above
the threshold: at its start the last layer of the published network does not fire. That all variants compute the same
loss and the same gradients is checked first. Sizes: sequential MNIST (2 layers of 128, L=784) and Speech Commands (4
layers of 512, L=250, skips; no dropout, which JAX would draw otherwise).
"""

import math
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Bench, Run, growth
from benchmarks.memory import peak
from benchmarks.s5rf_peers import Form, Passes, jax_module, jax_passes, torch_logits, torch_passes, torch_potential
from spikingssm.models import S5RF

__all__ = ["SIZES", "Case", "Size", "case", "errors", "passes", "run", "variant"]

OURS = ("fused", "parallel", "loop")
LEAN, PUBLISHED = ("tree", "jax tree"), ("tree, as published", "jax tree, as published")
VARIANTS = (*OURS, *LEAN, *PUBLISHED)
ABOVE = 0.1
"""Share of a layer's potentials above the threshold."""


@dataclass(frozen=True)
class Size:
    """One network and its batch; ``density`` is the share of ones in its input, None for uniform numbers."""

    d_input: int
    d_output: int
    d_model: int
    n_layers: int
    num_blocks: int
    first: str
    batch: int
    length: int
    density: float | None = None

    @property
    def elements(self) -> int:
        """Neuron steps of one training step."""
        return self.batch * self.length * self.d_model * self.n_layers

    def tiny(self) -> "Size":
        """The same form, as small as it gets."""
        return replace(self, d_model=8, num_blocks=2, batch=2, length=40)


SIZES = {
    "smnist 50": Size(1, 10, 128, 2, 8, "zoh", 50, 784),
    "smnist 64": Size(1, 10, 128, 2, 8, "zoh", 64, 784),
    "ssc 128": Size(140, 35, 512, 4, 16, "dirac", 128, 250, 0.05),
}
EPOCHS = {"smnist 64": (54_000, 100), "ssc 128": (75_466, 80)}
"""Training sequences, and epochs of the published recipe."""


@dataclass(frozen=True)
class Case:
    """A network that fires, and its batch."""

    size: Size
    model: S5RF
    x: Tensor
    labels: Tensor

    @property
    def rotation(self) -> Tensor | None:
        """(n, n) complex, the block of the first layer's back-rotation."""
        rotation = self.model.layers[0].neuron.rotation
        return None if rotation is None else torch.complex(*rotation)

    def rates(self) -> list[float]:
        """Spikes per neuron and step, by layer."""
        found: list[float] = []
        hooks = [
            layer.neuron.register_forward_hook(lambda m, i, out: found.append(out[0].mean().item()))
            for layer in self.model.layers
        ]
        with torch.no_grad():
            self.model(self.x)
        for hook in hooks:
            hook.remove()
        return found


def run(bench: Bench) -> None:
    """The check, steps, parts, growth, epochs and memory."""
    check(bench)
    tiny = bench.level == "tiny"
    steps = {}
    for name, size in bench.pick(SIZES, {"smnist 50": replace(SIZES["smnist 50"], batch=8)}, SIZES).items():
        wanted = VARIANTS if name == "smnist 50" else (OURS[0], *LEAN)
        steps[name] = _steps(bench, name, size.tiny() if tiny else size, _there(bench, wanted))
    _parts(bench, tiny)
    _growth(bench, tiny)
    for name, (sequences, epochs) in EPOCHS.items():
        if name in steps:
            _epochs(bench, name, steps[name]["fused"], sequences, epochs)
    for name in _there(bench, VARIANTS) if bench.level == "full" else ():
        found = peak("benchmarks.s5rf:variant", name=name, size="smnist 50")
        if found is None:
            bench.note(f"memory of {name}: not measured (a process of its own ran out of memory or time)")
            continue
        bench.add(table="memory", size="smnist 50", variant=name, gibibytes=found / 2**30)


def check(bench: Bench) -> None:
    """Loss and gradients of every variant against the loop's, on small networks of both forms."""
    for name in ("smnist 50", "ssc 128"):
        small = case(SIZES[name].tiny())
        rates = [round(rate, 3) for rate in small.rates()]
        for variant_, found in errors(small, _there(bench, VARIANTS)).items():
            bench.add(table="check", size=name, variant=variant_, rates=rates, **found)


def errors(given: Case, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """By variant, the error of its loss, and the largest error of a gradient over that parameter's largest gradient."""
    loss, grads = passes("loop", given).gradients()
    found = {}
    for name in names:
        other, theirs = passes(name, given).gradients()
        worst = max(abs(theirs[n] - g).max() / abs(g).max() for n, g in grads.items())
        found[name] = {"loss": other, "loss_error": abs(other - loss), "gradient_error": float(worst)}
    return found


def case(size: Size, device: str = "cpu") -> Case:
    """A network of this size with its layers scaled one after another, on its first few rows; and a batch."""
    torch.manual_seed(0)
    shape = (size.batch, size.length, size.d_input)
    x = torch.rand(shape) if size.density is None else (torch.rand(shape) < size.density).float()
    labels = torch.randint(size.d_output, (size.batch,))
    given = Case(size, _model(size, "fused"), x, labels)
    form, rows = Form(size.n_layers, size.first), x[:4]
    with torch.no_grad():
        parameters = dict(given.model.named_parameters())
        for i in range(size.n_layers):
            potential = torch_potential(form, i, parameters, given.rotation, rows)
            top = potential.flatten().topk(1 + round(ABOVE * potential.numel())).values
            threshold = top[-2:].mean()  # on no potential, where rounding would decide
            parameters[f"layers.{i}.dense.weight"] /= threshold
            spikes = (potential > threshold).float()
            rows = spikes + rows if 0 < i < size.n_layers - 1 else spikes
    return replace(given, model=given.model.to(device), x=x.to(device), labels=labels.to(device))


def passes(name: str, given: Case, rates: tuple[float, float] = (0.0, 0.0)) -> Passes:
    """A variant on a case, with parameters of its own.

    Args:
        name: one of `VARIANTS`.
        given: the case.
        rates: learning rates of dense layers and readout, and of the neurons.
    """
    published = name in PUBLISHED
    form = Form(given.size.n_layers, given.size.first, published)
    if name.startswith("jax"):
        return jax_passes(form, dict(given.model.named_parameters()), given.rotation, given.x, given.labels, rates)
    if name in OURS:
        model = _model(given.size, name).to(given.x.device)
        model.load_state_dict(given.model.state_dict())
        return torch_passes(lambda: model(given.x)[0], dict(model.named_parameters()), given.labels, rates)
    leaves = {n: p.detach().clone().requires_grad_() for n, p in given.model.named_parameters()}
    logits = partial(torch_logits, form, leaves, given.rotation, given.x)
    return torch_passes(logits, leaves, given.labels, rates)


def variant(name: str, size: str, tiny: bool = False, device: str = "cpu") -> Run:
    """One training step of a variant."""
    return passes(name, case(SIZES[size].tiny() if tiny else SIZES[size], device)).step


def _model(size: Size, solver: str) -> S5RF:
    return S5RF(
        size.d_input, size.d_output, size.d_model, size.n_layers,
        num_blocks=size.num_blocks, first_discretisation=size.first, solver=solver, start="published",
    )  # fmt: skip


def _there(bench: Bench, names: tuple[str, ...]) -> tuple[str, ...]:
    if any(name.startswith("jax") for name in names) and jax_module() is None:
        bench.note("jax left out: not installed (make bench-peers)")
        return tuple(name for name in names if not name.startswith("jax"))
    return names


def _steps(bench: Bench, name: str, size: Size, names: tuple[str, ...]) -> dict[str, float]:
    given = case(size)
    row = {"table": "steps", "size": name, "pass": "training step", **asdict(size)}
    row["rates"] = [round(rate, 3) for rate in given.rates()]
    return bench.compare(row, {n: passes(n, given).step for n in names}, size.elements, ("fused", *LEAN))


def _parts(bench: Bench, tiny: bool) -> None:
    """What a step is made of: the parts of the first two layers, forward and backward, each on its own."""
    for name in bench.pick(("smnist 50", "ssc 128"), ("smnist 50",)):
        size = SIZES[name].tiny() if tiny else replace(SIZES[name], batch=bench.pick(SIZES[name].batch, 8))
        given = case(size)
        spikes = (torch.rand(size.batch, size.length, size.d_model) < ABOVE).float()
        runs = {}
        for i, x in enumerate((given.x, spikes)):
            layer = given.model.layers[i]
            runs[f"dense, layer {i}"] = _part(layer.dense, x, leaf=i > 0)
            runs[f"neurons, layer {i}"] = _part(layer.neuron, layer.dense(x).detach())
        runs["readout"] = _part(given.model.readout, spikes)
        row = {"table": "parts", "size": name, "pass": "fwd+bwd", **asdict(size)}
        bench.compare(row, runs, size.elements // size.n_layers)


def _part(module: nn.Module, x: Tensor, leaf: bool = True) -> Run:
    """Forward and backward of a module with an incoming gradient that lies ready; gradients of what it learns too."""

    def out(value: Any) -> Tensor:
        return value[0] if isinstance(value, tuple) else value

    x = x.detach().requires_grad_(leaf)
    with torch.no_grad():
        incoming = torch.randn_like(out(module(x)))

    def both() -> None:
        out(module(x)).backward(incoming)
        module.zero_grad(set_to_none=True)
        x.grad = None

    return both


def _growth(bench: Bench, tiny: bool) -> None:
    """How a step's time grows with L."""
    lengths = bench.pick((784, 1568, 3136, 6272), (784, 1568), (16, 32))
    seconds = []
    for length in lengths:
        base = SIZES["smnist 50"].tiny() if tiny else replace(SIZES["smnist 50"], batch=16)
        size = replace(base, length=length)
        row = {"table": "lengths", "pass": "training step", **asdict(size)}
        seconds.append(bench.compare(row, {"fused": passes("fused", case(size)).step}, size.elements)["fused"])
    found = {"since": lengths[0], "until": lengths[-1], "exponent": growth(lengths, seconds)}
    bench.add(table="growth", variant="fused", passes="training step", **found)


def _epochs(bench: Bench, name: str, step: float, sequences: int, epochs: int) -> None:
    """The published recipe at this step time: training steps only, no data, no validation."""
    steps = math.ceil(sequences / SIZES[name].batch)
    row = {"table": "epochs", "size": name, "variant": "fused", "steps": steps, "epochs": epochs}
    bench.add(**row, epoch_seconds=steps * step, hours=epochs * steps * step / 3600)
