"""The bank of modes in Triton (here its interpreter, on a GPU where there is one) against the kernels of the CPU."""

import pytest
import torch
from helpers import assert_close, every_dtype

pytest.importorskip("triton")
from sdn.ops.modes import cpu as modes_cpu
from sdn.ops.modes import gpu as modes_triton
from sdn.ops.modes import operator as modes

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = [(module.BLOCK, module.CELL) for module in (modes, modes_cpu, modes_triton)]  # before they are made short


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch):
    for module in (modes, modes_triton):  # the interpreter takes milliseconds a step
        monkeypatch.setattr(module, "BLOCK", 4)


def system(batch, length, channels, count, dtype):
    draw = lambda *shape: torch.randn(*shape, dtype=dtype)  # noqa: E731
    wide = lambda *shape: torch.complex(draw(*shape), draw(*shape))  # noqa: E731
    A = torch.exp(torch.complex(-0.1 * draw(channels, count).abs(), draw(channels, count)))
    u, state = draw(batch, length, channels), wide(batch, channels, count)
    return u, A, wide(channels, count), wide(channels, count), draw(channels), state


def real(x):
    x = x.detach().cpu().resolve_conj()
    return torch.view_as_real(x) if x.is_complex() else x


@pytest.mark.parametrize(
    ("batch", "length", "channels", "count"), [(2, 1, 3, 1), (1, 9, 17, 3), (2, 8, 16, 2), (1, 6, 5, 4)]
)
@pytest.mark.parametrize("start", [False, True], ids=["rest", "start"])
@every_dtype
def test_triton_is_the_cpu(dtype, start, batch, length, channels, count):
    *given, initial = system(batch, length, channels, count, dtype)
    initial = initial if start else None
    reverse = start ^ (count == 3)
    on = [None if x is None else x.to(DEVICE) for x in (*given, initial)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modes, "_kernels", lambda u: modes_triton)
        got, quiet = (modes._forward(*on, reverse, save) for save in (True, False))
    want = modes._modes(*given, initial, reverse, False)
    gradient, last = torch.randn_like(given[0]), torch.randn_like(want[1]) if start else None
    back = [gradient.to(DEVICE), None if last is None else last.to(DEVICE), *on[:5], got[2], reverse]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modes, "_kernels", lambda u: modes_triton)
        moved = modes._backward(*back)
    leaves = [x.clone().requires_grad_() for x in (*given, torch.zeros_like(want[1]) if initial is None else initial)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modes, "BLOCK", modes_cpu.BLOCK)
        y, state = modes.modes(*leaves, reverse)
    outputs, toward = ([y], [gradient]) if last is None else ([y, state], [gradient, last])
    wanted = torch.autograd.grad(outputs, leaves, toward)
    assert got[2].shape[2] == -(-length // 4)
    assert quiet[2].shape[2] == 0
    for g, w in zip([*got[:2], *quiet[:2], *moved], [*want[:2], *want[:2], *wanted], strict=True):
        assert length == 1 or w.abs().max() > 1e-3
        assert_close(real(g), real(w), factor=10)


def test_blocks_and_cells_are_the_operators():
    assert len(set(SIZES)) == 1
