"""The Triton form of `predict`, in Triton's interpreter where there is no GPU, against the plain one."""

import pytest
import torch
from helpers import assert_close, currents, every_dtype
from test_predict import LAYOUTS, lively_net

from sdn.surrogate.predict import _fused, plain_predict, predict

pytest.importorskip("triton")
from sdn.ops.membrane.predict_gpu import predict_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def by_triton(net, x, skip=0):
    net, x = net.to(DEVICE, x.dtype), x.to(DEVICE)
    return _fused(predict_triton, x, list(net.parameters()), skip).cpu()


@every_dtype
@pytest.mark.parametrize("layout", ["contiguous", "time innermost", "every other"])
@pytest.mark.parametrize("size", [(8, 8, 1), (1, 1, 1), (3, 5, 1)], ids=str)
def test_it_is_the_plain_network(size, layout, dtype):
    net = lively_net(*size).to(dtype)
    for shape in [(2, 1, 1), (1, 2, 5), (1, 63, 3), (1, 40, 7)]:
        x = LAYOUTS[layout](currents(1.5, *shape, dtype=dtype))
        want = plain_predict(net.double(), x.double())
        assert shape[1] < 40 or want.std() > 0.05
        assert_close(by_triton(net, x), want, dtype)
        skip = shape[1] // 2
        assert_close(by_triton(net, x, skip), want[:, skip:], dtype)


def test_a_long_row():
    net, x = lively_net().float(), currents(1.5, 1, 1024, 1, dtype=torch.float32)
    assert_close(by_triton(net, x), plain_predict(net.double(), x.double()), torch.float32)


def test_strictly_causal_and_nan_stays_in_its_row():
    net, x = lively_net(), currents(1.5, 1, 40, 3)
    other = x.clone()
    other[0, 20, 1] = float("nan")
    mem, moved = by_triton(net, x), by_triton(net, other)
    differ = mem != moved
    assert moved[0, 21:29, 1].isnan().all()
    differ[0, 21:29, 1] = False
    assert not differ.any()


def test_deeper_networks_are_refused_here_and_served_by_predict():
    net, x = lively_net(n_layers=2), currents(1.0, 1, 20, 3)
    with pytest.raises(NotImplementedError, match="one layer, got 2"):
        by_triton(net, x)
    assert_close(predict(net.to(DEVICE), x.to(DEVICE)).cpu(), plain_predict(net.cpu(), x))
