"""The spiking block, the residual connection, the pools and the whole model."""

import itertools

import pytest
import torch
from helpers import assert_close
from own_neurons import Quadratic
from torch import nn

import sdn
from sdn import ALIF, LIF, RF
from spikingssm.layers import (
    S4D,
    BlockState,
    EachStep,
    Residual,
    S4DState,
    SpikingBlock,
    TiedDropout,
)
from spikingssm.measures.spikes import record_spikes
from spikingssm.models import SpikingSSM, SpikingSSMState

FAR = 100.0  # float64: 1e-10
SMALL = {"d_model": 8, "n_layers": 2, "d_state": 4, "dynamics": LIF(0.4, 0.5), "solver": "loop", "dropout": 0.0}


def small(**options):
    """A float64 model in eval mode whose norms are off their start."""
    model = SpikingSSM(3, 4, **{**SMALL, **options}).double()
    with torch.no_grad():
        for block in model.blocks:
            for parameter in block.norm.parameters():
                parameter += 0.2 * torch.randn_like(parameter)
        model(inputs())  # a training run: running statistics move
    return model.eval()


def inputs(batch=3, length=23):
    return 4 * torch.randn(batch, length, 3, dtype=torch.float64)


def lively(model, x):
    """Every layer spikes, and none all the time: an equality of outputs then says something."""
    with record_spikes(model) as record:
        out = model(x)
    assert all(0.02 < rate < 0.8 for rate in record.rates().values()), record.rates()
    return out


@pytest.fixture
def artifact(tmp_path):
    """A surrogate that was never trained: it predicts something, causally."""
    return sdn.save_artifact(tmp_path / "untrained.safetensors", sdn.reduce(sdn.SDN().eval()), SMALL["dynamics"])


# ---- sequence = chunks = steps
@pytest.mark.parametrize("pool", ["mean", "last", "each"])
@pytest.mark.parametrize("prenorm", [False, True])
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_chunks_and_steps_equal_the_whole(norm, prenorm, pool):
    check_streaming(small(norm=norm, prenorm=prenorm, pool=pool))


@pytest.mark.parametrize(
    "options",
    [
        {"norm_as_published": True},
        {"learn_b": True, "learn_threshold": False},
        {"dynamics": RF(omega=20.0, damping=5.0, dt=0.02, threshold=0.02), "prenorm": True},
        {"dynamics": LIF(0.7, 0.6, "soft"), "n_layers": 1, "d_model": 1, "norm": "none"},
    ],
    ids=["published-norm", "learned-b", "rf", "one-channel"],
)
def test_other_models_stream_too(options):
    check_streaming(small(**options))


def test_surrogate_streams_too(artifact):
    check_streaming(small(solver=sdn.Surrogate(artifact)))


def check_streaming(model):
    x = inputs()
    whole, last = lively(model, x)
    state, parts = None, []
    for chunk in x.split([1, 9, 13], 1):
        logits, state = model(chunk, state)
        parts.append(logits)
    each = isinstance(model.pool, EachStep)
    assert_close(torch.cat(parts, 1) if each else parts[-1], whole, factor=FAR)
    assert_same_state(state, last)
    state, steps = model.initial_state(3, dtype=torch.float64), []
    for now in x.unbind(1):
        logits, state = model.step(now, state)
        steps.append(logits)
    assert_same_state(state, last)
    assert_close(torch.stack(steps, 1) if each else steps[-1], whole, factor=FAR)
    prefix, _ = model(x[:, :11])  # a step answers for the prefix so far
    assert_close(steps[10], prefix[:, -1] if each else prefix, factor=FAR)


def assert_same_state(got, want):
    for a, b in zip(flat(got), flat(want), strict=True):
        a, b = (torch.view_as_real(t) if t.is_complex() else t for t in (a, b))
        assert_close(a, b, torch.float64, FAR)


def flat(state):
    return [state] if isinstance(state, torch.Tensor) else [t for part in state for t in flat(part)]


@pytest.mark.parametrize("pool", ["mean", "last", "each"])
def test_one_step_of_one_sequence(pool):
    model = small(pool=pool)
    x = inputs(1, 1)
    logits, _ = model(x)
    step, _ = model.step(x[:, 0])
    assert step.shape == (1, 4)
    assert logits.shape == ((1, 1, 4) if pool == "each" else (1, 4))
    assert_close(step, logits.reshape(1, 4), factor=FAR)


def test_block_is_its_parts():
    block = SpikingBlock(LIF(0.4, 0.5), 6, 8, solver="loop", dropout=0.5).double().eval()
    x = 3 * torch.randn(2, 30, 6, dtype=torch.float64)
    spikes, _ = block.neuron(block.ssm(x)[0])
    assert 0.02 < spikes.mean() < 0.8
    mixed = spikes @ block.output.weight.T + block.output.bias
    y, state = block(x)
    assert_close(y, mixed[..., :6] * torch.sigmoid(mixed[..., 6:]), factor=FAR)
    assert isinstance(state, BlockState)
    assert isinstance(state.ssm, S4DState)


# ---- residual and norm
class Double(nn.Module):
    def forward(self, x, state=None):
        return 2 * x + 1, state


def normalised(x, norm, axes):
    mean, var = x.mean(axes, keepdim=True), x.var(axes, keepdim=True, unbiased=False)
    return (x - mean) / torch.sqrt(var + 1e-5) * norm.weight + norm.bias


@pytest.mark.parametrize("prenorm", [False, True])
@pytest.mark.parametrize(("norm", "axes"), [("layer", (-1,)), ("batch", (0, 1)), ("none", None)])
def test_norm_is_applied_where_it_says(norm, axes, prenorm):
    """Guards defect 31: post-norm was computed and thrown away."""
    residual = Residual(Double(), 6, norm=norm, prenorm=prenorm).double().train()
    for parameter in residual.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(4, 20, 6, dtype=torch.float64)
    f = lambda z: normalised(z, residual.norm, axes) if axes else z  # noqa: E731
    want = x + 2 * f(x) + 1 if prenorm else f(3 * x + 1)
    y, _ = residual(x)
    assert_close(y, want, factor=FAR)
    if axes:
        y.square().sum().backward()
        assert all(p.grad.abs().sum() > 0 for p in residual.norm.parameters())


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_norm_as_published_goes_nowhere(norm):
    residual = Residual(Double(), 6, norm=norm, norm_as_published=True).train()
    x = torch.randn(4, 20, 6, requires_grad=True)
    y, _ = residual(x)
    assert torch.equal(y, x + (2 * x + 1))
    y.sum().backward()
    assert all(p.grad is None for p in residual.norm.parameters())
    assert len(list(residual.norm.parameters())) == 2


@pytest.mark.parametrize("norm", [None, "Layer", "rms"])
def test_unknown_norm_is_refused(norm):
    """Guards defect 32: it built a stack without layers."""
    with pytest.raises(ValueError, match=rf"'batch', 'layer' or 'none', got {norm!r}"):
        SpikingSSM(3, 4, **{**SMALL, "norm": norm})


# ---- dropout
def test_dropout_is_tied_over_time():
    out = TiedDropout(0.25).train()(torch.ones(50, 9, 40))
    assert torch.equal(out, out[:, :1].expand_as(out))
    torch.testing.assert_close(out.unique(), torch.tensor([0.0, 4 / 3]))
    assert 0.2 < (out == 0).float().mean() < 0.3
    zeroed = (out[:, 0] == 0).float()
    assert 0 < zeroed.mean(0).std() < 0.2  # a mask of its own for every row
    assert 0 < zeroed.mean(1).std() < 0.2  # and every channel
    assert torch.equal(TiedDropout(0.25).eval()(out), out)


def test_spikes_are_binary_before_the_dropout_in_training():
    """Guards defect 38: spikes were counted as 0 and 1/(1-p)."""
    model = small(dropout=0.5)
    x, seen = inputs(8), []
    with record_spikes(model) as calm:
        model(x)
    model.blocks[0].layer.output.register_forward_pre_hook(lambda _, args: seen.append(args[0].unique().tolist()))
    with record_spikes(model.train()) as record:
        model(x)
    assert seen == [[0.0, 2.0]]
    assert record.rates()["blocks.0.layer.neuron"] == calm.rates()["blocks.0.layer.neuron"] > 0.02


@pytest.mark.parametrize("pool", ["mean", "last", "each"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_changes_no_logits(bidirectional, pool):
    """Guards defect 39: padding ran into the backward kernel."""
    model = small(bidirectional=bidirectional, pool=pool, norm="batch", prenorm=True)
    x, lengths = inputs(), torch.tensor([23, 5, 14])
    padded = x.clone()
    for i, n in enumerate(lengths.tolist()):
        padded[i, n:] = 1000.0
    logits, _ = model(padded, lengths=lengths)
    for i, n in enumerate(lengths.tolist()):
        alone, _ = model(x[i : i + 1, :n])
        assert_close(logits[i, :n] if pool == "each" else logits[i], alone[0], factor=FAR)


# ---- the whole model
@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_parameter_learns(bidirectional):
    """Guards defects 24 and 31: surrogates and post-norms never received a gradient."""
    model = SpikingSSM(3, 4, **{**SMALL, "learn_b": True}, bidirectional=bidirectional).train()
    logits, _ = lively(model, inputs().float())
    nn.functional.cross_entropy(logits, torch.tensor([0, 3, 1])).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


PUBLISHED = {  # millions of parameters in the backbone; n, d, N, bidirectional, learn_b
    "minst": (0.75, 2, 400, 64, False, False),
    "pminst": (0.66, 4, 256, 64, False, False),
    "cifar": (3.76, 6, 512, 64, True, False),
    "listops": (0.82, 6, 256, 4, True, True),
    "aan": (1.09, 6, 256, 64, True, False),
    "pathx": (1.19, 6, 256, 64, True, True),
    "sc": (0.25, 6, 128, 16, True, True),
    "dvs128gesture": (3.36, 6, 512, 16, True, True),
    "wt103": (35.77, 16, 1024, 64, False, False),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    millions, n, d, N, bidirectional, learn_b = PUBLISHED[name]
    model = SpikingSSM(1, 10, d, n, N, solver="loop", bidirectional=bidirectional, learn_b=learn_b)
    count = sum(p.numel() for p in model.blocks.parameters())
    assert abs(count / 1e6 - millions) <= 0.005


def test_the_surrogate_adds_nothing(artifact):
    """Guards defect 24: 153 idle parameters in every layer."""
    exact, swapped = (SpikingSSM(3, 4, **{**SMALL, "solver": s}) for s in ("loop", sdn.Surrogate(artifact)))
    shapes = lambda model: {k: v.shape for k, v in model.state_dict().items()}  # noqa: E731
    assert shapes(swapped) == shapes(exact)
    assert not any(isinstance(m, sdn.ReducedSDN) for m in swapped.modules())
    swapped(inputs().float())[0].sum().backward()
    assert all(p.grad is not None for p in swapped.parameters())


def test_with_solver_shares_every_tensor(artifact):
    model = small(norm="batch").train()
    other = model.with_solver(sdn.Surrogate(artifact))
    for a, b in zip(
        itertools.chain(model.named_parameters(), model.named_buffers()),
        itertools.chain(other.named_parameters(), other.named_buffers()),
        strict=True,
    ):
        assert a[0] == b[0]
        assert a[1] is b[1]
    assert other.training
    solvers = lambda m: [type(b.layer.neuron.solver) for b in m.blocks]  # noqa: E731
    assert solvers(model) == [sdn.Loop] * 2
    assert solvers(other) == [sdn.Surrogate] * 2
    x = inputs()
    back = other.with_solver("loop").eval()
    assert torch.equal(back(x)[0], model.eval()(x)[0])
    assert not torch.equal(other.eval()(x)[0], model(x)[0])
    other(x)[0].sum().backward()
    assert model.encoder.weight.grad.abs().sum() > 0


def test_with_solver_refuses_what_cannot_run(artifact):
    with pytest.raises(ValueError, match="learned threshold"):
        small(dynamics=ALIF()).with_solver(sdn.Surrogate(artifact))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_strides_do_not_matter(bidirectional):
    """Guards defect 25: view() failed on strides."""
    model = small(bidirectional=bidirectional)
    wide = inputs(6, 46)
    x = wide[::2, ::2]
    assert not x.is_contiguous()
    assert torch.equal(model(x)[0], model(x.contiguous())[0])


def test_autocast_keeps_currents_wide():
    model = SpikingSSM(3, 4, **SMALL).eval()
    x, seen = inputs().float(), []
    for block in model.blocks:
        block.layer.neuron.register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        logits, state = lively(model, x)
        model.step(x[:, 0], state)
    assert seen == [torch.float32] * 4
    assert torch.isfinite(logits).all()
    assert (logits - model(x)[0]).abs().max() < 0.5
    logits.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_bfloat16_model_runs():
    model = SpikingSSM(3, 4, **SMALL).bfloat16().eval()
    logits, state = lively(model, inputs().bfloat16())
    assert logits.dtype == torch.bfloat16
    assert model.step(inputs()[:, 0].bfloat16(), state)[0].dtype == torch.bfloat16


def test_bidirectional_sees_the_future_and_cannot_stream():
    model, causal = small(bidirectional=True, pool="each"), small(pool="each")
    x = inputs()
    changed = x.clone()
    changed[:, 5:] += 5
    assert_close(causal(x)[0][:, :5], causal(changed)[0][:, :5], factor=FAR)
    assert (model(x)[0][:, :5] - model(changed)[0][:, :5]).abs().max() > 1e-3
    assert model(x)[1] is None
    for cannot in (lambda: model.step(x[:, 0]), lambda: model.initial_state(3)):
        with pytest.raises(NotImplementedError, match="needs the steps to come"):
            cannot()
    with pytest.raises(ValueError, match=r"bidirectional.*no state"):
        model(x, causal.initial_state(3, dtype=torch.float64))


def test_training_from_rest_leaves_the_state_out_and_says_so():
    model = small(algorithm="fft").train()
    x = inputs()
    _, state = model(x)
    with pytest.raises(ValueError, match=r"left out.*initial_state"):
        model(x, state)
    _, state = model(x, model.initial_state(3, dtype=torch.float64))
    model(x, state)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SpikingSSM(3, 4, **{**SMALL, "n_layers": 0}), "n_layers must be at least 1, got 0"),
        (lambda: SpikingSSM(0, 4, **SMALL), "d_input must be at least 1, got 0"),
        (lambda: SpikingSSM(3, 4, **{**SMALL, "d_state": 5}), "even.*got 5"),
        (lambda: SpikingSSM(3, 4, **{**SMALL, "dropout": 1.0}), r"\[0, 1\), got 1.0"),
        (lambda: SpikingSSM(3, 4, **SMALL, pool="max"), r"\['each', 'last', 'mean'\], got 'max'"),
        (lambda: SpikingSSM(3, 4, **SMALL, prenorm=True, norm_as_published=True), "post-norm, got prenorm=True"),
        (lambda: SpikingSSM(3, 4, **SMALL)(torch.zeros(2, 9, 5)), r"length, 3\).*\(2, 9, 5\)"),
        (lambda: SpikingSSM(3, 4, **SMALL)(torch.zeros(9, 3)), r"length, 3\).*\(9, 3\)"),
        (lambda: SpikingSSM(3, 4, **SMALL)(torch.zeros(2, 0, 3)), r"length >= 1.*\(2, 0, 3\)"),
        (lambda: SpikingSSM(3, 4, **SMALL).step(torch.zeros(2, 9, 3)), r"\(batch, 3\).*\(2, 9, 3\)"),
        (lambda: small()(inputs(), SpikingSSMState((), ())), "state has 0 blocks, this model has 2"),
        (lambda: small()(inputs(), small().initial_state(2)), r"\(2, 8, 2\).*\(3, 8, 2\)"),
        (lambda: small()(inputs(2), lengths=torch.tensor([24, 3])), "1 to 23 for 23 steps, got 3 to 24"),
    ],
)
def test_errors_give_both_values(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_states_are_not_in_the_state_dict():
    model = small()
    before = set(model.state_dict())
    model(inputs())
    assert set(model.state_dict()) == before
    assert not any("state" in name for name in before)
    slow = [m.slow_parameters for m in model.modules() if isinstance(m, S4D)]
    assert slow == [("log_dt", "log_A_real", "A_imag")] * 2


class FixedThreshold(Quadratic):
    """Of which only ``a`` can be learned."""

    transforms = {"a": "abs"}


def test_a_neuron_whose_threshold_is_no_parameter_says_what_to_set():
    SpikingSSM(3, 2, 8, 1, dynamics=Quadratic(), solver="fused")
    with pytest.raises(ValueError, match="FixedThreshold has no threshold that can be learned; set learn_threshold=F"):
        SpikingSSM(3, 2, 8, 1, dynamics=FixedThreshold(), solver="fused")
    model = SpikingSSM(3, 2, 8, 1, dynamics=FixedThreshold(), solver="fused", learn_threshold=False, learn=("a",))
    logits, _ = model(torch.randn(2, 20, 3))
    assert logits.shape == (2, 2)
