"""Checks of `sdn doctor --gpu` that only a GPU can fail, with stand-ins for the device."""

import contextlib
import types

import gpu_code
import pytest
import torch

from sdn.doctor import gpu, graphs, known


class Graph:
    """What a graph replays: the tensors that the call made while it was captured."""

    def __init__(self, call, faithful):
        self.call, self.faithful = call, faithful
        self.got = None

    def capture(self):
        self.got = self.call()
        return self.got

    def replay(self):
        for tensor, value in zip(self.got, self.call(), strict=True):
            if self.faithful:
                tensor.copy_(value)


@pytest.fixture
def streams(monkeypatch):
    waiting = types.SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda *_: waiting)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: waiting)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", lambda _: contextlib.nullcontext())


@pytest.mark.parametrize("name", graphs.calls("cpu"))
@pytest.mark.parametrize("faithful", [True, False])
def test_a_replay_must_fill_what_the_capture_made(name, faithful, streams, monkeypatch):
    graph = Graph(graphs.calls("cpu")[name], faithful)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    turns = iter([graph.call] * graphs.AROUND + [graph.capture])
    expected, got = graphs.replayed(lambda: next(turns)())
    assert len(expected) == 2
    assert all(value.any() for value in expected)
    assert all(torch.equal(one, other) == faithful for one, other in zip(expected, got, strict=True))


def test_graphs_are_for_cuda():
    assert graphs.in_a_graph("scan", "cpu") == "not on this device"


def test_the_stored_table_is_that_of_the_compiled_kernels():
    import json

    table = json.loads(gpu_code.TABLE.read_text())
    most = dict.fromkeys(known.STACK, 0)
    for name, facts in table["kernels"].items():
        first = name.split()[0]
        family = first if first in known.STACK else "neuron"
        most[family] = max(most[family], facts["stack"])
    assert most == known.STACK
    assert table["triton"] == known.TRITON


@pytest.mark.parametrize(
    ("module", "family"),
    [
        ("sdn.ops.scan.gpu", "scan"),
        ("sdn.ops.resonate.gpu", "resonate"),
        ("sdn.ops.membrane.predict_gpu", "predict"),
        ("sdn.ops.common.tiles_gpu", None),
        ("torch._inductor.runtime", None),
        ("sdn_generated_brf_recurrent_backward_gpu_0a1b", "recurrent"),
        ("sdn_generated_multigaussian_resonate_backward_gpu_0a1b", "resonate"),
        ("sdn_generated_lif_forward_gpu_0a1b", "neuron"),
    ],
)
def test_a_kernel_is_found_by_its_module(module, family):
    assert known.family_of(module) == family


def test_generated_kernels_stand_in_such_modules():
    pytest.importorskip("triton")
    from sdn import BRF, MultiGaussian
    from sdn.compiler.programs import program_of, slope_of
    from sdn.ops.neuron import gpu as neuron
    from sdn.ops.recurrent import gpu as recurrent
    from sdn.ops.resonate import gpu as resonate

    key, slope = program_of(BRF()).key, slope_of(MultiGaussian())[0]
    kernels = {
        "neuron": neuron.forward_kernel(key),
        "recurrent": recurrent.backward_kernel(key, slope, True),
        "resonate": resonate.backward_kernel(slope),
    }
    for family, kernel in kernels.items():
        assert known.family_of(getattr(kernel, "fn", kernel).__module__) == family


def test_what_spills_more_than_is_known_is_named(monkeypatch):
    kernel = lambda spills: types.SimpleNamespace(n_regs=255, n_spills=spills)  # noqa: E731
    monkeypatch.setattr(gpu, "_compiled_kernels", lambda: [("a", "modes", kernel(54)), ("b", "scan", kernel(17))])
    found, problems = gpu.spills("cuda")
    assert found["a"] == {"registers": 255, "spilled_bytes": 216, "known": 216}
    (line,) = problems
    assert line.startswith("b spills 68 bytes, where 0 are known of scan kernels (sm_90, Triton ")
    assert gpu.spills("cpu") == ({}, [])


def test_a_stream_that_gives_other_bits_is_reported(monkeypatch):
    turns = iter(range(9))
    shifted = lambda *_: {"x": torch.full((2,), float(next(turns)))}  # noqa: E731
    monkeypatch.setattr(gpu, "operators", lambda: {"scan, complex": shifted})
    assert gpu._elsewhere("side stream", "scan, complex", "cpu") == "differs"
    monkeypatch.setattr(gpu, "operators", lambda: {"scan, complex": lambda *_: {"x": torch.ones(2)}})
    assert gpu._elsewhere("side stream", "scan, complex", "cpu") == "equal"
