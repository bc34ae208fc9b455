"""Maps whose weights a layer applies in its own way: pruned, hooked, normed, quantised, they do what they say."""

import pytest
import torch
import torch.nn.utils.prune as prune
from torch import nn

import sdn
from spikingssm import RSNN, S5RF, Recurrent, SpikingSSM
from spikingssm.layers import AdaptiveVocabulary, TokenEncoder
from spikingssm.layers.maps import is_plain, weight_of

F64 = torch.float64


def layer(solver="fused", **options):
    return Recurrent(3, sdn.BRF(), 6, solver=solver, **options).double()


def x_of(std=80.0):
    return std * torch.randn(2, 60, 3, dtype=F64)


def assert_alive(spikes):
    assert 0.01 < spikes.mean() < 0.9


@pytest.mark.parametrize("solver", ["fused", "loop"])
@pytest.mark.parametrize("options", [{}, {"bias": True, "mask": 0.4}], ids=str)
def test_pruned_weights_are_those_of_the_layer(solver, options):
    """Against a layer that has the pruned numbers as its own; gradients of what is left, none of what is cut."""
    one = layer(solver, **options)
    other = layer(solver, **options)
    other.load_state_dict(one.state_dict())
    for part in ("input", "recurrent"):
        prune.random_unstructured(getattr(one, part), "weight", amount=0.4)
        with torch.no_grad():
            getattr(other, part).weight.mul_(getattr(one, part).weight_mask)
    x = x_of()
    spikes, want = one(x)[0], other(x)[0]
    assert torch.equal(spikes, want)
    assert_alive(want)
    weights = torch.randn_like(want)
    for made, made_by in ((spikes, one), (want, other)):
        ((made * weights).sum() + 0.0).backward()
        assert made_by.input.bias is None or made_by.input.bias.grad is not None
    for part in ("input", "recurrent"):
        pruned, plain = getattr(one, part), getattr(other, part)
        expected = plain.weight.grad * pruned.weight_mask
        assert torch.allclose(pruned.weight_orig.grad, expected, rtol=1e-9, atol=1e-12 * expected.abs().max().item())
    chunk = one(x[:, 30:], one(x[:, :30])[1])[0]
    assert torch.equal(chunk, spikes[:, 30:])


def test_pruned_weights_follow_what_is_loaded_and_train():
    model, x = RSNN(3, 5, 16, pool="mean"), 80 * torch.randn(2, 60, 3)
    for part in (model.layers[0].input, model.layers[0].recurrent):
        prune.l1_unstructured(part, "weight", amount=0.5)
    before = model(x)[0]
    optimiser = torch.optim.SGD(model.parameters(), 1.0)
    for _ in range(2):
        optimiser.zero_grad()
        model(x)[0].square().sum().backward()
        optimiser.step()
    assert not torch.equal(model(x)[0], before)
    with torch.no_grad():
        model.load_state_dict({k: 0 * v if k.endswith("orig") else v for k, v in model.state_dict().items()})
        assert not model(x)[0].any()


@pytest.mark.parametrize("norm", ["hook", "parametrization", "spectral"])
def test_weight_norms(norm):
    one, x = layer(), x_of()
    want = one(x)[0]
    norms = {
        "hook": nn.utils.weight_norm,
        "spectral": nn.utils.parametrizations.spectral_norm,
        "parametrization": nn.utils.parametrizations.weight_norm,
    }
    with pytest.warns(FutureWarning) if norm == "hook" else torch.enable_grad():
        norms[norm](one.recurrent)
    if norm != "spectral":
        assert torch.allclose(one(x)[0], want)
    one(x)[0].sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in one.recurrent.parameters())


def test_hooks_run_once_a_pass_and_may_change_what_they_see():
    one, x, seen = layer(bias=True), x_of(), []
    want = one(x)[0]
    one.input.register_forward_hook(lambda *_: seen.append("input"))
    one.recurrent.register_forward_pre_hook(lambda *_: seen.append("recurrent"))
    assert torch.equal(one(x)[0], want)
    assert sorted(seen) == ["input", "recurrent"]
    one.input.register_forward_hook(lambda module, given, out: 0 * out)
    assert not one(x)[0].any()


def test_global_hooks_run_too():
    one, x, seen = layer(), x_of(), []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module))
    try:
        one(x)
    finally:
        handle.remove()
    assert one.input in seen
    assert one.recurrent in seen
    assert is_plain(one.input)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*quantiz.*")
def test_dynamic_quantisation():
    """Spikes of the weights that the quantised maps hold; inputs of 0 and 80 lose nothing."""
    model, x = RSNN(3, 5, 16, pool="mean").eval(), 80.0 * (torch.rand(2, 60, 3) < 0.3)
    small = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert not isinstance(small.layers[0].input, nn.Linear)
    with torch.no_grad():
        for part in ("input", "recurrent"):
            getattr(model.layers[0], part).weight.copy_(getattr(small.layers[0], part).weight().dequantize())
        assert torch.allclose(weight_of(small.layers[0].recurrent), model.layers[0].recurrent.weight, atol=1e-6)
        found, want = small.layers[0](x)[0], model.layers[0](x)[0]
    assert_alive(want)
    assert (found != want).double().mean() < 0.01


def test_nothing_is_called_without_need(monkeypatch):
    """A plain layer multiplies nothing beforehand."""
    one = layer()
    monkeypatch.setattr(nn.Linear, "__call__", lambda *_: pytest.fail("called"))
    one(x_of())


@pytest.mark.parametrize("make", [lambda: TokenEncoder(9, 4), lambda: AdaptiveVocabulary(9, 4, [3], div_value=2)])
def test_pruned_tables(make):
    one, other = make(), make()
    other.load_state_dict(one.state_dict())
    x = torch.arange(9).reshape(1, 9)
    read = (lambda m: m(x)) if isinstance(one, TokenEncoder) else (lambda m: m.embed(x))
    for name, part in list(one.named_modules()):
        if isinstance(part, (nn.Linear, nn.Embedding)):
            prune.random_unstructured(part, "weight", amount=0.4)
            with torch.no_grad():
                other.get_submodule(name).weight.mul_(part.weight_mask)
    assert torch.allclose(read(one), read(other), atol=1e-6)
    assert (read(one) != read(make())).any()
    with torch.no_grad():
        for part in one.modules():
            if hasattr(part, "weight_orig"):
                part.weight_orig.zero_()
    assert not read(one).any()


@pytest.mark.parametrize("name", ["ssm", "s5rf"])
def test_the_other_models_call_their_maps(name):
    model = SpikingSSM(3, 5, 8, 1, 8, solver="fused") if name == "ssm" else S5RF(3, 5, 8, 2, num_blocks=2)
    x = torch.randn(2, 30, 3)
    seen = []
    maps = [part for part in model.modules() if isinstance(part, (nn.Linear, nn.Embedding))]
    for part in maps:
        part.register_forward_hook(lambda module, *_: seen.append(module))
    model.eval()(x)
    assert set(maps) == set(seen)


def loaded(model, part, shift=0.0):
    """Other numbers for every pruned weight whose name holds ``part``."""
    state = {
        k: torch.randn_like(v) * 0.3 + shift if k.endswith(f"{part}_orig") else v for k, v in model.state_dict().items()
    }
    model.load_state_dict(state)


def test_a_pruned_tied_table_follows_what_is_loaded_and_trains():
    model, x = SpikingSSM(1, 20, 16, 1, 8, vocab=20, pool="each", dropout=0.0), torch.randint(0, 20, (3, 30))
    prune.l1_unstructured(model.decoder, "table", 0.5)
    model(x)
    loaded(model, "table")
    first, second = model(x)[0], model(x)[0]
    assert torch.equal(first, second)
    assert first.abs().max() > 0.1
    optimiser = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(2):
        optimiser.zero_grad()
        model(x)[0].square().sum().backward()
        optimiser.step()


def test_steps_run_the_hooks_of_what_they_are_made_of():
    model, x = SpikingSSM(3, 5, 16, 2, 8, dropout=0.0).eval(), torch.randn(3, 30, 3)
    for block in model.blocks:
        prune.l1_unstructured(block.layer.ssm, "D", 0.5)
    model(x)
    loaded(model, "D")
    seen = []
    for name, part in {"residual": model.blocks[0], "block": model.blocks[1].layer}.items():
        part.register_forward_hook(lambda *_, name=name: seen.append(name))
    with torch.no_grad():
        state = None
        for now in x.unbind(1):
            y, state = model.step(now, state)
        assert seen == ["residual", "block"] * 30
        whole = model(x)[0]
    torch.testing.assert_close(y, whole, rtol=0, atol=1e-5)
    assert whole.abs().max() > 0.1


def test_a_pruned_learned_field_follows_what_is_loaded_and_trains():
    neuron, x = sdn.Neuron(sdn.LIF(0.125), 8, learn={"threshold": torch.rand(8) + 0.5}), torch.randn(2, 50, 8)
    prune.l1_unstructured(neuron.learned, "threshold", 0.5)
    for _ in range(2):
        neuron.zero_grad()
        neuron(x)[0].sum().backward()
        assert neuron.learned.threshold_orig.grad.abs().sum() > 0
    before = neuron(x)[0].mean()
    loaded(neuron, "threshold", 5)
    after = neuron(x)[0].mean()
    assert_alive(before)
    assert 0 < after < 0.7 * before
