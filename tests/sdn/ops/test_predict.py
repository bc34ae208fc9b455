"""`predict`: the fused pass against the network on rows, the network written out again, and a known function."""

import numpy as np
import pytest
import torch
from helpers import assert_close, assert_same_spikes, currents, every_dtype
from hypothesis import given, settings
from hypothesis import strategies as st

from sdn import ReducedSDN, load_artifact
from sdn.surrogate.artifact import shipped_artifacts
from sdn.surrogate.predict import plain_predict, predict


def lively_net(d_model=8, kernel_size=8, n_layers=1, seed=0):
    """Random weights of a size that lets every layer matter and about half of the units be switched off."""
    generator = torch.Generator().manual_seed(seed)
    net = ReducedSDN(d_model, kernel_size, n_layers).double()
    for value in net.parameters():
        scale = value[0].numel() ** -0.5 if value.ndim > 1 else 0.3
        value.copy_(scale * torch.randn(value.shape, generator=generator, dtype=torch.float64))
    return net


def on_rows(net, x):
    """The plain network, one row of (B*H, L) after another."""
    batch, length, channels = x.shape
    rows = net(x.transpose(1, 2).reshape(-1, length))
    return rows.reshape(batch, channels, length).transpose(1, 2)


def written_out(net, row):
    """The network on one row in numpy, value by value: an independent statement of it."""
    w = {name: value.double().numpy() for name, value in net.named_parameters()}
    taps, below = net.kernel_size, [np.asarray(row, dtype=np.float64)] * net.d_model
    for i in range(net.n_layers):
        above = np.zeros((net.d_model, len(row)))
        for t in range(len(row)):
            newest = t if i else t - 1  # the first layer does not see the present
            a = np.zeros(net.d_model)
            for c in range(net.d_model):
                past = [below[c][t - j] if t - j >= 0 else 0.0 for j in range(t - newest, t - newest + taps)]
                a[c] = max(0.0, w[f"spatial.{i}.bias"][c] + sum(w[f"spatial.{i}.weight"][c, 0, ::-1] * past))
            mixed = a + w[f"feature.{i}.weight"][:, :, 0] @ a + w[f"feature.{i}.bias"]
            above[:, t] = np.maximum(0.0, mixed)
        below = list(above)
    return w["decoder.weight"][0, :, 0] @ np.stack(below) + w["decoder.bias"][0]


LAYOUTS = {
    "contiguous": lambda x: x,
    "time innermost": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "batch innermost": lambda x: x.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    "every other": lambda x: torch.stack([x, -x], -1).flatten(2)[..., ::2],
    "expanded": lambda x: x[:, :, :1].expand(x.shape),
}
SIZES = [(8, 8, 1), (8, 8, 2), (8, 8, 3), (1, 1, 1), (3, 2, 2), (9, 5, 1), (20, 11, 2)]


# ---- the function
@every_dtype
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_it_is_the_network_on_rows(size, layout, dtype):
    net = lively_net(*size).to(dtype)
    for shape in [(2, 1, 3), (3, 2, 5), (2, 63, 7), (1, 1024, 3)]:
        x = layout(currents(1.5, *shape, dtype=dtype))
        want = on_rows(net.double(), x.double())
        assert shape[1] < 63 or want.std() > 0.05
        got = predict(net.to(dtype), x)
        assert got.dtype == dtype
        assert_close(got, want)
        assert_close(plain_predict(net, x), want)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_network_written_out_again(size):
    net, x = lively_net(*size), currents(1.5, 1, 30, 2)
    want = np.stack([written_out(net, x[0, :, h].numpy()) for h in range(2)], -1)[None]
    assert want.std() > 0.05
    assert_close(predict(net, x), torch.from_numpy(want))
    assert_close(on_rows(net, x), torch.from_numpy(want))


@pytest.mark.parametrize("lag", [1, 3, 8])
def test_a_network_that_is_a_delay(lag):
    """relu(x) - relu(-x), ``lag`` steps ago."""
    net = lively_net(2)
    for value in net.parameters():
        value.zero_()
    net.spatial[0].weight[:, 0, 8 - lag] = torch.tensor([1.0, -1.0])
    net.decoder.weight[0, :, 0] = torch.tensor([1.0, -1.0])
    for x in (currents(1.0, 2, 90, 33), LAYOUTS["time innermost"](currents(1.0, 2, 90, 33))):
        mem = predict(net, x)
        assert torch.equal(mem[:, lag:], x[:, :-lag])
        assert (mem[:, :lag] == 0).all()


@every_dtype
def test_spikes_of_the_shipped_networks(dtype):
    for path in shipped_artifacts():
        artifact = load_artifact(path)
        if not artifact.is_pointwise:
            continue
        net, x = artifact.network.to(dtype), currents(1.0, 8, 1024, 16, dtype=dtype)
        margin = artifact.dynamics.distance(on_rows(net.double(), x.double()), x.double())
        got = artifact.dynamics.fires(predict(net.to(dtype), x), x)
        assert_same_spikes(got.to(dtype), (margin >= 0).to(dtype), margin)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_sizes_shapes_and_layouts(data):
    draw = data.draw
    net = lively_net(
        draw(st.integers(1, 18)), draw(st.integers(1, 10)), draw(st.integers(1, 3)), draw(st.integers(0, 9))
    )
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 90), st.integers(1, 40)))
    x = draw(st.sampled_from(list(LAYOUTS.values())))(currents(draw(st.floats(0.1, 9.0)), *shape))
    skip = draw(st.integers(0, shape[1] - 1))
    assert_close(predict(net, x, skip), on_rows(net, x)[:, skip:])


# ---- what must not matter
@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("layout", ["contiguous", "time innermost"])
@pytest.mark.parametrize("shape", [(1, 70_000, 1), (2, 700, 129), (1, 9000, 17)], ids=str)
def test_bit_for_bit_however_a_sequence_is_cut(shape, layout, n_layers):
    """Across the borders of blocks (the cache) and of pieces (the threads), and in other lanes."""
    net = lively_net(n_layers=n_layers).float()
    x = LAYOUTS[layout](currents(1.5, *shape, dtype=torch.float32))
    whole, reach = predict(net, x), net.receptive_field
    assert_close(whole[:, -50:], on_rows(net, x[:, -50 - reach :])[:, reach:])
    for begin, end in ((0, 1), (0, reach + 3), (5, 333), (600, 700), (shape[1] - 77, shape[1])):
        assert torch.equal(predict(net, x[:, begin:end], 0)[:, reach:], whole[:, begin + reach : end])
        history = max(0, begin - reach)
        assert torch.equal(predict(net, x[:, history:end], begin - history), whole[:, begin:end])
    one = shape[2] // 2
    assert torch.equal(predict(net, x[:, :, one : one + 1]), whole[:, :, one : one + 1])


@pytest.mark.parametrize("n_layers", [1, 2])
def test_bit_for_bit_whatever_the_threads(n_layers):
    net, x = lively_net(n_layers=n_layers), currents(1.5, 1, 9000, 17)
    want = predict(net, x)
    try:
        torch.set_num_threads(3)
        assert torch.equal(predict(net, x), want)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("layout", ["contiguous", "time innermost"])
@pytest.mark.parametrize("value", [50.0, float("nan"), float("inf")])
def test_strictly_causal_and_every_row_for_itself(value, layout, n_layers):
    """A change at step t moves the R steps after it in its own row, and nothing else by a bit."""
    net, x = lively_net(n_layers=n_layers), LAYOUTS[layout](currents(1.5, 2, 120, 5))
    t, reach = 47, net.receptive_field
    other = x.clone()
    other[1, t, 3] = value
    mem, moved = predict(net, x), predict(net, other)
    differ = ~((mem == moved) | (mem.isnan() & moved.isnan()))
    assert differ[1, t + 1, 3]
    differ[1, t + 1 : t + 1 + reach, 3] = False
    assert not differ.any()
    if value != value:
        assert moved[1, t + 1 : t + 1 + reach, 3].isnan().all()


def test_plain_predict_in_blocks_of_any_size():
    for n_layers in (1, 2, 3):
        net = lively_net(n_layers=n_layers)
        for shape in [(2, 1, 3), (2, 5, 3), (1, 8, 1), (3, 23, 5), (2, 131, 4), (90, 40, 1)]:
            x = currents(1.5, *shape)
            for block in (1, 7, 64, 500, 10**9):
                assert_close(plain_predict(net, x, 0, block), on_rows(net, x))
            assert_close(plain_predict(net, x, shape[1] - 1), on_rows(net, x)[:, -1:])


# ---- the operator
def test_it_has_no_gradient_and_saves_nothing():
    net, x = lively_net().float(), currents(1.0, dtype=torch.float32).requires_grad_()
    assert not predict(net, x).requires_grad
    direct = torch.ops.sdn.predict(x, list(net.parameters()), 0)
    assert not direct.requires_grad
    assert direct.grad_fn is None
    assert torch.equal(direct, predict(net, x))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_torch_approves_of_the_operator(layout):
    for n_layers, dtype, skip in ((1, torch.float32, 0), (2, torch.float64, 4), (1, torch.bfloat16, 4)):
        net, x = lively_net(n_layers=n_layers).to(dtype), layout(currents(1.0, 2, 12, 3, dtype=dtype))
        torch.library.opcheck(torch.ops.sdn.predict.default, (x, list(net.parameters()), skip))
        mem, fake = predict(net, x, skip), predict(net.to("meta"), x.to("meta"), skip)
        assert (mem.shape, mem.dtype) == (fake.shape, fake.dtype) == ((2, 12 - skip, 3), dtype)
        assert mem.stride() == fake.stride()


def test_layout_and_weights_of_another_kind():
    net, x = lively_net(), currents(1.0, dtype=torch.float32)
    assert predict(net, x).is_contiguous()
    assert predict(net, LAYOUTS["time innermost"](x)).transpose(1, 2).is_contiguous()
    assert_close(predict(net, x), predict(net, x.double()), torch.float32)
    half = predict(net, x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert_close(half, predict(net, x), torch.bfloat16)


def test_compiled_it_is_one_node_and_the_same_bits():
    net, x = lively_net().float(), currents(1.0, dtype=torch.float32)
    nodes = []

    def backend(graph, _):
        nodes.extend(n.target for n in graph.graph.nodes if n.op == "call_function")
        return graph

    compiled = torch.compile(lambda x: predict(net, x) + x, fullgraph=True, backend=backend)
    assert torch.equal(compiled(x), predict(net, x) + x)
    assert sum("sdn.predict" in str(n) for n in nodes) == 1
    assert not any("conv" in str(n) for n in nodes)
    whole = torch.compile(lambda x: predict(net, x) + x, fullgraph=True, backend="aot_eager")
    assert torch.equal(whole(x), predict(net, x) + x)


def test_refusals():
    net = lively_net()
    with pytest.raises(ValueError, match=r"L > skip = 5, got \(2, 5, 3\)"):
        predict(net, torch.zeros(2, 5, 3), 5)
    with pytest.raises(ValueError, match=r"\(B, L, H\).*got \(5, 3\)"):
        predict(net, torch.zeros(5, 3))
