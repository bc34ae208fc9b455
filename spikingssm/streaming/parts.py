"""How layers go into a plan: each adds its constants, states and calls, and says where its output will be."""

import torch
from torch import Tensor, nn

from spikingssm.layers.block import Residual, SpikingBlock
from spikingssm.layers.encoders import Frames, TokenEncoder
from spikingssm.layers.heads import EachStep, LastStep, MeanOverTime
from spikingssm.layers.integrator import LeakyIntegrator
from spikingssm.layers.maps import weight_of
from spikingssm.layers.readout import LeakyReadout
from spikingssm.layers.recurrent import Recurrent
from spikingssm.layers.s4d import S4D
from spikingssm.layers.s5 import S5
from spikingssm.layers.vocabulary import Vocabulary
from spikingssm.streaming import loops
from spikingssm.streaming.plan import Part, Plan

__all__ = [
    "add_integrator", "add_linear", "add_pool", "add_readout", "add_recurrent", "add_residual", "add_s5",
    "add_vectors", "no_step",
]  # fmt: skip


def no_step(part: nn.Module) -> NotImplementedError:
    """The error for a part that cannot be in a plan."""
    return NotImplementedError(f"{type(part).__name__} has no compiled step; use model.step.")


def add_vectors(plan: Plan, encoder: nn.Module, x: Part) -> Part:
    """What a network reads -> the channels of its layers: `Frames`, `TokenEncoder` or `Vocabulary`."""
    if isinstance(encoder, Frames):
        each = torch.eye(x.size).reshape(x.size, encoder.patch, encoder.d_input)
        made = encoder(each).squeeze(1)  # by a call, for what prunes or renews its weights
        return add_linear(plan, x, (made - encoder.bias).T, encoder.bias)
    if not isinstance(encoder, (TokenEncoder, Vocabulary)):
        raise no_step(encoder)
    table = encoder.table if isinstance(encoder, Vocabulary) else weight_of(encoder.table)
    h = plan.room(table.shape[1])
    plan.call(loops.embedded, x, plan.constant(table * table.shape[1] ** 0.5), h, h.size)
    return h


def add_residual(plan: Plan, residual: Residual, name: str, h: Part) -> Part:
    """A `Residual` around a `SpikingBlock`; ``h`` is written over."""
    block = residual.layer
    if not isinstance(block, SpikingBlock):
        raise no_step(block)
    inner = _normed(plan, residual.norm, h, plan.room(h.size)) if residual.prenorm else h
    current = _modes(plan, block.ssm, f"{name}.layer.ssm", inner)
    like = torch.zeros(1, 1, block.neuron.channels)
    spikes = plan.neuron(f"{name}.layer.neuron", block.neuron.current_dynamics(), current, like)
    branch = add_linear(plan, spikes, weight_of(block.output), block.output.bias)
    plan.call(loops.gated, branch, h, h.size)
    return h if residual.prenorm or residual.norm_as_published else _normed(plan, residual.norm, h, h)


def add_recurrent(plan: Plan, layer: Recurrent, name: str, x: Part) -> Part:
    """A `Recurrent` layer; its spikes."""
    weight, size = layer.weight, layer.channels  # (H, inputs + H)
    before = plan.state(f"{name}.spikes", size)
    current = add_linear(plan, x, weight[:, : x.size], layer.input.bias)
    plan.call(loops.mapped, before, plan.constant(weight[:, x.size :].T), current, size, size)
    spikes = plan.neuron(name, layer.current_dynamics(), current, torch.zeros(1, 1, size))
    plan.call(loops.copied, spikes, before, size)
    return spikes


def add_s5(plan: Plan, layer: S5, name: str, x: Part) -> Part:
    """An `S5` layer; the spikes of its neurons."""
    neuron, size = layer.neuron, layer.neuron.channels
    drive = add_linear(plan, x, weight_of(layer.dense), None)
    factor, gain = neuron.system()
    ones = torch.ones(size)
    rows = [factor.real, factor.imag, gain.real, gain.imag, neuron.threshold * ones]
    rows += [(neuron.refractory or 0.0) * ones, float(neuron.refractory is not None) * ones]
    turn = torch.zeros(2, 0, 0) if neuron.rotation is None else neuron.rotation.mT  # (2, column, row)
    state, spikes = plan.state(f"{name}.neuron", 3 * size), plan.room(size)
    arrays = drive, plan.constant(torch.stack(rows)), plan.constant(turn), state, spikes
    plan.spiking(f"{name}.neuron", spikes, loops.resonated, *arrays, size, turn.shape[-1], int(neuron.magnitude))
    return spikes


def add_readout(plan: Plan, readout: LeakyReadout, spikes: Part) -> None:
    """A `LeakyReadout`, which is the answer."""
    drive = add_linear(plan, spikes, readout.weight, None)
    keep, gain = plan.constant(torch.sigmoid(readout.tau)), plan.constant(torch.ones_like(readout.tau))
    y = plan.state("readout", drive.size)
    plan.call(loops.integrated, drive, keep, gain, y, y.size)
    plan.call(loops.averaged, y, plan.sums("mean", 1 + y.size), plan.out, y.size)


def add_integrator(plan: Plan, readout: LeakyIntegrator, spikes: Part) -> Part:
    """A `LeakyIntegrator`; its potentials."""
    drive = add_linear(plan, spikes, readout.weight, readout.bias)
    keep, gain = plan.constant(readout.alpha), plan.constant(1 - readout.alpha)
    y = plan.state("readout", drive.size)
    plan.call(loops.integrated, drive, keep, gain, y, y.size)
    return y


def add_pool(plan: Plan, pool: nn.Module, h: Part) -> Part:
    """What a pool makes of the steps so far."""
    if isinstance(pool, (LastStep, EachStep)):
        return h
    if not isinstance(pool, MeanOverTime):
        raise no_step(pool)
    pooled = plan.room(h.size)
    plan.call(loops.averaged, h, plan.sums("mean", 1 + h.size), pooled, h.size)
    return pooled


def add_linear(plan: Plan, x: Part, weight: Tensor, bias: Tensor | None, into: Part | None = None) -> Part:
    """``W x + b``, W (outputs, inputs); into a room of its own, or where it is told."""
    outputs, inputs = weight.shape
    target = plan.room(outputs) if into is None else into
    plan.call(loops.copied, plan.constant(torch.zeros(outputs) if bias is None else bias), target, outputs)
    plan.call(loops.mapped, x, plan.constant(weight.T), target, inputs, outputs)
    return target


def _modes(plan: Plan, ssm: S4D, name: str, u: Part) -> Part:
    z, gain, C = ssm._system(torch.float32)
    planes = [part.T for number in (torch.exp(z), gain, 2 * C[0]) for part in (number.real, number.imag)]
    system = torch.stack(planes, 1)  # (modes, 6, H)
    count, _, channels = system.shape
    y, state = plan.room(channels), plan.state(name, 2 * count * channels)
    plan.call(loops.modes, u, plan.constant(system), plan.constant(ssm.D), state, y, count, channels)
    return y


def _normed(plan: Plan, norm: nn.Module, h: Part, target: Part) -> Part:
    if isinstance(norm, nn.Identity):
        return h
    if isinstance(norm, nn.LayerNorm):
        plan.call(
            loops.normed,
            h,
            plan.constant(norm.weight),
            plan.constant(norm.bias),
            norm.eps,
            target,
            plan.room(16),
            h.size,
        )
        return target
    if not isinstance(norm, nn.BatchNorm1d) or norm.running_mean is None or norm.running_var is None:
        raise no_step(norm)
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    offset = norm.bias.double() - norm.running_mean.double() * factor
    plan.call(loops.scaled, h, plan.constant(factor), plan.constant(offset), target, h.size)
    return target
