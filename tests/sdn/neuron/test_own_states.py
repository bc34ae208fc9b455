"""A state is memory of its own: who changes an output, an input or an older state in place changes no next chunk."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import sdn
from spikingssm import RSNN, S4D, S5RF, Recurrent, SpikingBlock, SpikingSSM
from spikingssm.layers.heads import LastStep, MeanOverTime
from spikingssm.layers.integrator import LeakyIntegrator
from spikingssm.layers.readout import LeakyReadout

NEURONS = {
    "lif": sdn.LIF(0.2), "alif": sdn.ALIF(), "rf": sdn.RF(), "brf": sdn.BRF(), "hrf": sdn.HRF(),
    "izhikevich": sdn.IzhikevichRF(),
}  # fmt: skip
FUSED = ("lif", "alif", "rf", "brf")


def models():
    for name, dynamics in NEURONS.items():
        for solver in ("loop", "fused", "parallel", "surrogate"):
            if solver == "loop" or (name in FUSED and solver == "fused") or name == "lif":
                yield f"Neuron {name} {solver}", lambda d=dynamics, s=solver: sdn.Neuron(d, 3, solver=s)
            if solver == "loop" or (name in FUSED and solver == "fused"):
                yield f"Recurrent {name} {solver}", lambda d=dynamics, s=solver: Recurrent(3, d, 5, solver=s)
    for pool in ("each", "last", "mean"):
        yield f"RSNN {pool}", lambda p=pool: RSNN(3, 5, 8, dynamics=sdn.ALIF(), pool=p)
        yield f"SpikingSSM {pool}", lambda p=pool: SpikingSSM(3, 5, 16, 1, 8, dropout=0.0, pool=p)
    for solver in ("fused", "loop", "parallel"):
        yield f"S5RF {solver}", lambda s=solver: S5RF(3, 5, 16, 2, num_blocks=2, solver=s)
    yield "S4D", lambda: S4D(3, 8)
    yield "LeakyIntegrator", lambda: LeakyIntegrator(3, 5)


MODELS = dict(models())


def tensors(value) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from tensors(inner)


def places(*values) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors(values) if tensor.numel()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("grad", [True, False], ids=["with gradients", "without"])
def test_nothing_is_shared(name, grad) -> None:
    torch.manual_seed(0)
    model, x = MODELS[name]().eval(), torch.randn(2, 24, 3)
    with torch.set_grad_enabled(grad):
        y, state = model(x)[:2]
        assert places(state)
        assert not places(state) & places(x, y)
        y, following = model(x, state)[:2]
        assert not places(following) & places(x, y, state)
        state = None
        for now in x[:, :3].unbind(1):
            y, following = model.step(now, state)[:2]
            assert not places(following) & places(x, y, state)
            state = following


@pytest.mark.parametrize("pool", [LastStep(3), MeanOverTime(3)], ids=["last", "mean"])
@pytest.mark.parametrize("given", [False, True], ids=["all steps", "lengths"])
def test_a_pool_shares_nothing(pool, given) -> None:
    x, lengths = torch.randn(2, 5, 3), torch.tensor([3, 5])
    y, state = pool(x, None, lengths) if given else pool(x)
    assert not places(state) & places(x, y, lengths)


@pytest.mark.parametrize("pool", ["each", "last"])
def test_logits_may_be_normalised_in_place(pool) -> None:
    torch.manual_seed(0)
    model, x = RSNN(3, 5, 16, dynamics=sdn.ALIF(), pool=pool).eval(), 40.0 * (torch.rand(2, 40, 3) < 0.3)
    with torch.no_grad():
        whole = model(x)[0]
        y, state = model(x[:, :20])
        y -= y.logsumexp(-1, keepdim=True)
        rest = model(x[:, 20:], state)[0]
    want = whole[:, 20:] if pool == "each" else whole
    assert want.abs().max() > 0.1
    torch.testing.assert_close(rest, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("wrong", [(1, 2), "x", [None], 0.0, torch.zeros(2, 24, 3)], ids=lambda w: type(w).__name__)
@pytest.mark.parametrize("name", [*MODELS, "LastStep", "MeanOverTime", "SpikingBlock", "LeakyReadout"])
def test_a_state_of_another_layer_is_refused_in_one_sentence(name, wrong) -> None:
    more = {
        "LastStep": lambda: LastStep(3), "MeanOverTime": lambda: MeanOverTime(3),
        "SpikingBlock": lambda: SpikingBlock(sdn.LIF(0.2), 3, 8), "LeakyReadout": lambda: LeakyReadout(3, 5),
    }  # fmt: skip
    model, x = {**MODELS, **more}[name]().eval(), torch.randn(2, 24, 3)
    for call in (lambda: model(x, wrong), lambda: model.step(x[:, 0], wrong)):
        with pytest.raises(ValueError, match=r"state|initial") as caught:
            call()
        assert "\n" not in str(caught.value)
