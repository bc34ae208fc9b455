"""Devices without kernels, and kernels that cannot be compiled: a sentence that names the way out."""

import time
import types

import pytest
import torch

import sdn
from sdn.ops.common import place
from sdn.ops.scan.operator import scan_loop
from spikingssm.layers import LeakyIntegrator


def on(device):
    """What the choice of kernels looks at of a tensor there."""
    return types.SimpleNamespace(device=types.SimpleNamespace(type=device), is_cuda=device == "cuda")


@pytest.mark.parametrize(
    ("device", "change", "message"),
    [
        ("mps", {}, "none for mps"),
        ("xpu", {}, "none for xpu"),
        ("cuda", {"FOR_AMD": True}, r"written for NVIDIA, and this torch is built for AMD \(ROCm\)"),
        ("cuda", {"FOR_AMD": False, "HAS_TRITON": False}, "need the package triton, which is not installed"),
    ],
)
def test_a_device_without_kernels_is_refused_by_every_operator(device, change, message, monkeypatch):
    for name, value in change.items():
        monkeypatch.setattr(place, name, value)
    ways = {"modes": "algorithm='fft'", "resonate": "solver='parallel' or 'loop'"}
    for name in ("neuron", "recurrent", "resonate", "modes", "scan"):
        operator = __import__(f"sdn.ops.{name}.operator", fromlist=["_kernels"])
        with pytest.raises(NotImplementedError, match=f"{name}: .*{message}.*{ways.get(name, 'solver=.loop.')}"):
            operator._kernels(on(device))
    assert not place.has_kernels(on(device))


def test_here_and_on_a_gpu_of_nvidia_there_are_kernels(monkeypatch):
    monkeypatch.setattr(place, "FOR_AMD", False)
    monkeypatch.setattr(place, "HAS_TRITON", True)
    assert all(place.has_kernels(on(device)) for device in ("cpu", "cuda", "meta"))
    assert place.kernels("scan", on("cpu")).__name__ == "sdn.ops.scan.cpu"


def test_elsewhere_a_scan_is_the_plain_loop(monkeypatch):
    """So that the readout of a recurrent network runs there too, under solver="loop"."""
    module = __import__("sdn.ops.scan.operator", fromlist=["has_kernels"])
    a, b = torch.rand(4, requires_grad=True), torch.randn(2, 9, 4)
    want = sdn.scan(a, b)
    monkeypatch.setattr(module, "has_kernels", lambda _: False)
    monkeypatch.setattr(module, "_scan", lambda *_: pytest.fail("a kernel was called"))
    found = sdn.scan(a, b)
    assert torch.allclose(found, want, atol=1e-6)
    assert torch.equal(found, scan_loop(a, b))
    found.sum().backward()
    assert a.grad.all()
    assert LeakyIntegrator(4, 3)(b)[0].shape == (2, 9, 3)


def test_without_a_c_compiler_triton_names_what_to_install():
    pytest.importorskip("triton")
    from sdn.ops.common import launch_gpu as launch_triton

    class Kernel:
        __name__ = "_forward"

        def __init__(self, text):
            self.text = text

        def __getitem__(self, programs):
            def run(*_, **__):
                raise RuntimeError(self.text)

            return run

    with pytest.raises(NotImplementedError, match=r"need a C compiler.*install gcc or set CC=PATH.*solver='loop'"):
        launch_triton.launch(Kernel("Failed to find C compiler. Please specify via CC"), (1,), torch.zeros(1))
    with pytest.raises(RuntimeError, match="out of memory"):
        launch_triton.launch(Kernel("out of memory"), (1,), torch.zeros(1))


def test_the_first_launch_of_a_kind_says_that_it_compiles(capsys, monkeypatch):
    pytest.importorskip("triton")
    from sdn.ops.common import launch_gpu as launch_triton

    monkeypatch.setattr(launch_triton, "PATIENCE", 0.01)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    calls = []

    class Kernel:
        __name__ = "_backward"

        def __getitem__(self, programs):
            return lambda *arguments, **options: (calls.append((programs, options)), time.sleep(0.1))

    kernel = Kernel()
    for width in (5, 5, 6):
        launch_triton.launch(kernel, (3,), torch.zeros(1), torch.zeros(2), width, num_warps=1)
    assert calls == [((3,), {"num_warps": 1})] * 3
    said = capsys.readouterr().err
    assert said.count("sdn: compiling backward for the GPU (once for these types") == 2
