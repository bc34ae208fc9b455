"""States and fields may have any name, also one that generated code uses."""

from collections import namedtuple
from dataclasses import make_dataclass

import pytest
import torch
from drawn import run_plain

import sdn

NAMES = [
    ("t1", "t2"), ("p0", "c0"), ("slope", "membrane"), ("spike", "current"), ("watch", "after_u"), ("g_u", "gv"),
    ("x", "now"), ("fixed", "block"), ("numbers", "shape"), ("F", "np"), ("j", "W"), ("exp", "one"), ("gs", "gm"),
    ("constant0", "n0"), ("first", "second"), ("row", "lane"), ("u_own", "u"),
]  # fmt: skip


def neuron_of(state, field):
    """A leaky neuron with one more state, whose state and field have these names."""
    State = namedtuple("State", [state, "other"])

    def past(self, now):
        return getattr(self, field) * now[0] + 0.25 * now[1]

    def advance(self, now, current, spike):
        fresh = self.past(now) * (now[1] + 1.5) + current
        return State(fresh * (1 - spike), 0.5 * now[1] + 0.25 * torch.tanh(now[0]))

    fields = [(field, float, 0.7), ("threshold", float, 1.0)]
    space = {"past": past, "advance": advance, "State": State, "transforms": {field: "none", "threshold": "log"}}
    return make_dataclass("Named", fields, bases=(sdn.Dynamics,), namespace=space, frozen=True, eq=False)()


@pytest.mark.parametrize("names", NAMES, ids=" ".join)
def test_a_name_changes_nothing(names):
    x, weights = torch.randn(2, 30, 3, dtype=torch.float64), torch.randn(2, 30, 3, dtype=torch.float64)
    neuron = neuron_of(*names)
    spikes, mem, gx, of_fields = run_plain(neuron, x, sdn.ArcTan(), False, weights)
    field = torch.full((3,), 0.7, dtype=torch.float64, requires_grad=True)
    given = x.clone().requires_grad_()
    want = sdn.simulate(neuron.replace(**{names[1]: field}), given, spike_gradient=sdn.ArcTan())
    grads = torch.autograd.grad((want.spike * weights).sum(), [given, field])
    assert want.spike.any()
    assert torch.equal(torch.from_numpy(spikes), want.spike.detach())
    found = torch.from_numpy(mem), torch.from_numpy(gx), of_fields[names[1]]
    for got, exact in zip(found, (want.mem, *grads), strict=True):
        assert torch.allclose(got, exact, rtol=1e-10, atol=1e-12)
