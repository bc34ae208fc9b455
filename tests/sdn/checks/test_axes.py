"""Data whose axes are others than (batch, length, channels): the message names the call, and the call mends it."""

import re

import pytest
import torch

import sdn
from sdn import LIF, Neuron, resonate, scan, simulate
from spikingssm import RSNN, S4D, S5, S5RF, Recurrent, SpikingSSM
from spikingssm.layers import EachStep, LastStep, LeakyIntegrator, LeakyReadout, MeanOverTime, ResonateAndFire

C, L = 6, 9
ENTRIES = {  # each reads (batch, length, 6)
    "Neuron": lambda: Neuron(LIF(), C),
    "Neuron, loop": lambda: Neuron(LIF(), C, solver="loop"),
    "Neuron, surrogate": lambda: Neuron(LIF(), C, solver="surrogate"),
    "Recurrent": lambda: Recurrent(C, LIF(), 8),
    "S4D": lambda: S4D(C, 4),
    "S5": lambda: S5(C, 16),
    "ResonateAndFire": lambda: ResonateAndFire(C // 2, num_blocks=1),
    "SpikingSSM": lambda: SpikingSSM(C, 4, 16, 1, 4, solver="loop"),
    "S5RF": lambda: S5RF(C, 4, 16, 1),
    "RSNN": lambda: RSNN(C, 4, 8),
    "LeakyReadout": lambda: LeakyReadout(C, 4),
    "LeakyIntegrator": lambda: LeakyIntegrator(C, 4),
    "MeanOverTime": lambda: MeanOverTime(C),
    "LastStep": lambda: LastStep(C),
    "EachStep": lambda: EachStep(C),
}
every_entry = pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
SHAPES = {  # what is given -> the call that the message names
    (2, C, L): "movedim(1, -1)",
    (C, 2, L): "movedim(0, -1)",
    (L, C): "unsqueeze(0)",
    (2, L, 1, 2, 3): "flatten(2)",
    (2, L, 2, 3): "flatten(2)",
    (2, C, 3, 3): "flatten(2).movedim(1, -1)",
    (2, 3, 3, C): "flatten(1, 2)",
}


def refused(call):
    with pytest.raises(ValueError) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


@every_entry
@pytest.mark.parametrize(("shape", "call"), SHAPES.items(), ids=[str(shape) for shape in SHAPES])
def test_the_call_that_the_message_names_mends_it(entry, shape, call):
    layer, x = entry(), torch.rand(shape)
    message = refused(lambda: layer(x))
    assert str(shape) in message
    named = re.search(rf"(x|current|drive)\.{re.escape(call)}", message)
    assert named, message
    layer(eval(named[0], {named[1]: x}))


@every_entry
def test_steps(entry):
    layer = entry()
    for shape, way in {
        (2, L, C): "a sequence goes to the layer itself",
        (C,): "unsqueeze(0)",
        (C, 4): ".T",
        (2, 2, 3, 1): ".flatten(1)",
    }.items():
        if hasattr(layer, "step"):
            assert way in refused(lambda shape=shape: layer.step(torch.rand(shape)))


@every_entry
def test_what_is_no_tensor_is_named(entry):
    layer, x = entry(), torch.rand(2, L, C)
    assert "must be a tensor, got ndarray; make one with torch.as_tensor(" in refused(lambda: layer(x.numpy()))
    assert "got a tuple that starts with one" in refused(lambda: layer((x, None)))


@every_entry
def test_other_kinds_of_numbers(entry):
    layer, x = entry(), torch.rand(2, L, C)
    assert ".float()" in refused(lambda: layer((x * 255).to(torch.uint8)))


@pytest.mark.parametrize("entry", [ENTRIES[name] for name in ("SpikingSSM", "S5RF", "S5")])
def test_another_precision_than_the_weights(entry):
    layer, x = entry(), torch.rand(2, L, C)
    for other in (x.double(), x.half(), x.bfloat16()):
        message = refused(lambda other=other: layer(other))
        assert f"x is {other.dtype} and the weights are torch.float32" in message
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x.bfloat16())
    layer.double()(x.double())


MORE = [
    (lambda: simulate(LIF(), torch.rand(7)), "current.unsqueeze(0).unsqueeze(-1)"),
    (lambda: simulate(LIF(), torch.rand(3, 7)), "(batch, length) of one channel is current.unsqueeze(-1)"),
    (lambda: simulate(LIF(), torch.rand(2, 5, 4, 8, 8)), "current.flatten(2) makes 256 channels"),
    (lambda: scan(torch.rand(4), torch.rand(5, 4)), "one sequence (length, channels) is b.unsqueeze(0)"),
    (lambda: scan(torch.rand(4), torch.rand(2, 5, 2, 2)), "b.flatten(2)"),
    (lambda: scan(torch.rand(4).numpy(), torch.rand(2, 5, 4)), "a must be a tensor, got ndarray"),
    (lambda: resonate(torch.rand(3, 4), torch.rand(2), torch.rand(2)), "drive.unsqueeze(0)"),
    (
        lambda: resonate(torch.rand(2, 3, 4, dtype=torch.complex64), torch.rand(4), torch.rand(4)),
        "torch.cat([u.real, u.imag], -1)",
    ),
    (lambda: sdn.recurrent(torch.rand(5, 4), torch.rand(5, 9), LIF()), "x.unsqueeze(0)"),
    (lambda: SpikingSSM(1, 4, 8, 1, 4, solver="loop")(torch.rand(2, 7)), "of one channel is x.unsqueeze(-1)"),
    (lambda: SpikingSSM(1, 4, 8, 1, 4, solver="loop", vocab=9)(torch.zeros(2, 7, 1).long()), "pass x.squeeze(-1)"),
    (lambda: SpikingSSM(1, 4, 8, 1, 4, solver="loop", vocab=9)(torch.zeros(2, 7)), "convert them with x.long()"),
    (lambda: S5RF(C, 4, 16, 1)(torch.rand(2, 7, C), lengths=[7, 3]), "pass torch.tensor(lengths)"),
    (lambda: S5RF(C, 4, 16, 1)(torch.rand(7, 2, C), lengths=torch.tensor([7, 3])), "pass x.transpose(0, 1)"),
    (
        lambda: simulate(LIF(), torch.rand(7, 2, 3), LIF.State(torch.zeros(2, 3))),
        "where the current has time first, pass it as current.transpose(0, 1)",
    ),
]


@pytest.mark.parametrize(("call", "way"), MORE, ids=[way for _, way in MORE])
def test_other_entries(call, way):
    assert way in refused(call)


def test_the_layer_of_a_convolution_per_pixel():
    """Both ways of the message for (B, L, C, H, W) give what they say."""
    x, neuron = torch.rand(2, 5, 4, 8, 8), Neuron(LIF(), 4)
    message = refused(lambda: neuron(x))
    assert "add the missing axis" not in message
    calls = re.findall(r"current\.[^ ;]+(?:, [^ ;)]+)*\)(?:\.flatten\(0, 2\))?", message)
    flat, each = (eval(call, {"current": x}) for call in calls)
    assert flat.shape == (2, 5, 256)
    assert torch.equal(neuron(each)[0].unflatten(0, (2, 8, 8)).permute(0, 3, 4, 1, 2)[:, :, 1], neuron_of(x[:, :, 1]))


def neuron_of(x):
    return Neuron(LIF(), 64)(x.flatten(2))[0].unflatten(2, (8, 8))
