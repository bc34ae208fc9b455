"""SDN and ReducedSDN: sizes, causality, the formula written again, shapes, export."""

import numpy as np
import pytest
import torch

from sdn import SDN, ReducedSDN, reduce

SIZES = [(8, 8, 1), (4, 3, 1), (8, 8, 2), (5, 4, 2), (3, 2, 3), (4, 1, 1), (4, 1, 2), (8, 8, 3)]
every_size = pytest.mark.parametrize(("d_model", "kernel_size", "n_layers"), SIZES)


def lively_sdn(d_model=8, kernel_size=8, n_layers=1, seed=0):
    """An SDN in float64 and eval mode with every weight and statistic random, none of them near a default."""
    generator = torch.Generator().manual_seed(seed)
    sdn = SDN(d_model, kernel_size, n_layers).double().eval()
    for name, value in sdn.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator, dtype=value.dtype) * 0.8)
            if name.endswith("running_var") or ".1.weight" in name:
                value.abs_().add_(0.2)
            if name.endswith(".1.bias"):
                value.add_(0.6)  # keeps most ReLUs alive
    return sdn


def test_parameter_counts():
    """Guards defect 11: the fused network kept an encoder that it never used."""
    count = lambda net: sum(p.numel() for p in net.parameters())  # noqa: E731
    assert [count(SDN(n_layers=n)) for n in (1, 2, 3)] == [193, 369, 545]
    assert [count(ReducedSDN(n_layers=n)) for n in (1, 2)] == [153, 153 + 72 + 72]
    reduced = ReducedSDN()
    assert {n: tuple(p.shape) for n, p in reduced.named_parameters()} == {
        "spatial.0.weight": (8, 1, 8), "spatial.0.bias": (8,), "feature.0.weight": (8, 8, 1),
        "feature.0.bias": (8,), "decoder.weight": (1, 8, 1), "decoder.bias": (1,),
    }  # fmt: skip
    assert not any(p.requires_grad for p in reduced.parameters())
    assert list(reduced.buffers()) == []
    assert all(p.requires_grad for p in SDN().parameters())


@every_size
@pytest.mark.parametrize("reduced", [False, True], ids=["sdn", "reduced"])
def test_strictly_causal_with_exactly_the_receptive_field(d_model, kernel_size, n_layers, reduced):
    """Guards defect 12: causality hung on cutting off what was padded on the right."""
    reach = n_layers * kernel_size - (n_layers - 1)
    length, at = reach + 12, reach + 8
    seen = torch.zeros(length, dtype=torch.bool)
    for seed in range(8):  # a dead ReLU may hide a step in one network, not in all of them
        net = lively_sdn(d_model, kernel_size, n_layers, seed)
        net = reduce(net) if reduced else net
        assert net.receptive_field == reach
        x = torch.randn(16, length, dtype=torch.float64, requires_grad=True)
        (grad,) = torch.autograd.grad(net(x)[:, at].sum(), x)
        seen |= (grad != 0).any(0)
    assert seen.nonzero().flatten().tolist() == list(range(at - reach, at))


@every_size
@pytest.mark.parametrize("reduced", [False, True], ids=["sdn", "reduced"])
def test_no_step_is_computed_that_is_cut_off_again(d_model, kernel_size, n_layers, reduced):
    """Guards defect 12: padding on the right made every layer compute 2K steps that nobody read."""
    net = lively_sdn(d_model, kernel_size, n_layers)
    net = reduce(net) if reduced else net
    lengths = []
    for module in net.modules():
        if isinstance(module, torch.nn.Conv1d):
            module.register_forward_hook(lambda _, inputs, output: lengths.append(output.shape[-1]))
    assert net(torch.randn(2, 30, dtype=torch.float64)).shape == (2, 30)
    assert lengths == [30] * len(lengths)
    assert len(lengths) == 2 * n_layers + 2 - reduced


@every_size
def test_changing_an_input_moves_nothing_before_it(d_model, kernel_size, n_layers):
    net = lively_sdn(d_model, kernel_size, n_layers)
    x = torch.randn(6, 60, dtype=torch.float64)
    moved = x.clone()
    moved[:, 30] += 3.0
    before, after = net(x), net(moved)
    assert torch.equal(before[:, :31], after[:, :31])
    assert torch.equal(before[:, 31 + net.receptive_field :], after[:, 31 + net.receptive_field :])
    assert not torch.equal(before, after)


@every_size
def test_reduced_is_the_published_formula(d_model, kernel_size, n_layers):
    """a_c[t] = relu(b_c + sum_k w_ck x[t-K+k]), f = relu(W a + d + a), mem = v.f + e, in numpy loops."""
    net, K = reduce(lively_sdn(d_model, kernel_size, n_layers)), kernel_size
    x = np.random.default_rng(0).normal(size=(2, 20))
    W = {name: value.numpy() for name, value in net.state_dict().items()}
    for row in x:
        f = None
        for i in range(n_layers):
            w, b = W[f"spatial.{i}.weight"], W[f"spatial.{i}.bias"]
            a = np.zeros((d_model, 20))
            for t in range(20):
                for k in range(K):
                    at = t - K + k if i == 0 else t - K + 1 + k
                    if at >= 0:
                        a[:, t] += w[:, 0, k] * (row[at] if i == 0 else f[:, at])
            a = np.maximum(a + b[:, None], 0)
            f = np.maximum(W[f"feature.{i}.weight"][:, :, 0] @ a + W[f"feature.{i}.bias"][:, None] + a, 0)
        want = (W["decoder.weight"][:, :, 0] @ f)[0] + W["decoder.bias"]
        got = net(torch.from_numpy(row)[None])[0].numpy()
        assert np.ptp(want) > 1e-3
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [SDN, ReducedSDN])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (4, 1), (3, 1024)], ids=str)
def test_axes_of_length_one_stay(make, shape):
    """Guards defect 10: squeeze() removed batch and time axes of length one."""
    net = make(4, 3, 2).eval()
    assert net(torch.randn(shape)).shape == shape


def test_a_longer_sequence_begins_with_the_shorter():
    net = lively_sdn(n_layers=2)
    x = torch.randn(2, 50, dtype=torch.float64)
    assert torch.allclose(net(x)[:, :7], net(x[:, :7]), rtol=0, atol=1e-14)


@pytest.mark.parametrize("make", [SDN, ReducedSDN])
@pytest.mark.parametrize("shape", [(5,), (2, 1, 5), (2, 0)], ids=str)
def test_wrong_shapes(make, shape):
    with pytest.raises(ValueError, match=rf"{make.__name__}: input must be \(N, L\) .* got \({str(shape)[1:-1]}\)"):
        make()(torch.randn(shape))


@pytest.mark.parametrize("size", ["d_model", "kernel_size", "n_layers"])
def test_wrong_sizes(size):
    with pytest.raises(ValueError, match=f"SDN: {size} must be an integer from 1 to 4096, got 0"):
        SDN(**{size: 0})
    with pytest.raises(ValueError, match=f"ReducedSDN: {size} must be an integer from 1 to 4096, got 9999"):
        ReducedSDN(**{size: 9999})


def test_train_and_eval_of_the_reduced_net_are_the_same():
    """Guards defect 27: train() of a parent moved the statistics of the surrogate."""
    net = reduce(lively_sdn(n_layers=2)).float()
    x = torch.randn(3, 30)
    want, before = net.eval()(x), {k: v.clone() for k, v in net.state_dict().items()}
    assert torch.equal(net.train()(x), want)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


@pytest.mark.parametrize("n_layers", [1, 2])
def test_export_with_any_length(n_layers, tmp_path):
    net = reduce(lively_sdn(n_layers=n_layers)).float()
    axes = {"input": {0: torch.export.Dim("rows"), 1: torch.export.Dim("length")}}
    program = torch.export.export(net, (torch.randn(3, 40),), dynamic_shapes=axes)
    torch.export.save(program, tmp_path / "net.pt2")
    again = torch.export.load(tmp_path / "net.pt2").module()
    for rows, length in ((3, 40), (5, 7), (2, 333)):
        x = torch.randn(rows, length)
        assert net(x).std() > 1e-3
        assert torch.allclose(again(x), net(x), rtol=1e-6, atol=1e-6)
