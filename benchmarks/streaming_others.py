"""The same step for the suite ``streaming`` by other programs: torch.compile, ONNX Runtime, and the exported C file."""

import ctypes
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Bench, Run
from spikingssm.export.c_check import compiler
from spikingssm.export.c_file import FLAGS, c_source, word_of
from spikingssm.export.onnx_file import write_onnx
from spikingssm.export.subject import Subject

__all__ = ["others"]

Array = Any


def others(bench: Bench, network: Any, x: torch.Tensor) -> dict[str, Run]:
    """Runs of all steps of x (1, L, C); what is not installed is noted and left out. All answers are compared."""
    step = network.tensor_step()
    with torch.no_grad():
        wanted = network(x)[0][0].numpy()
    makers: dict[str, Callable[[], Callable[[], Array]]] = {"tensor_step": lambda: _tensors(step, x)}
    makers["tensor_step, torch.compile"] = lambda: _tensors(torch.compile(step), x, step.initial_state())
    if bench.level == "tiny":
        makers.popitem()
    makers["ONNX Runtime"] = lambda: _onnx(network, x)
    makers["C, one call a step by ctypes"] = lambda: _c(network, x)
    found: dict[str, Run] = {}
    for name, make in makers.items():
        try:
            run = make()
        except (ImportError, RuntimeError) as error:
            bench.note(f"{name}: left out, {str(error).splitlines()[0]}")
            continue
        answer = run()
        if not np.allclose(answer, wanted, atol=1e-5):
            raise AssertionError(f"{name} differs by {np.abs(answer - wanted).max()}")
        found[name] = run
    return found


def _tensors(step: Any, x: torch.Tensor, first: Any = None) -> Callable[[], Array]:
    steps, rest = [*x.unbind(1)], step.initial_state() if first is None else first

    def run() -> Array:
        states = rest
        with torch.no_grad():
            for each in steps:
                logits, *more = step(each, *states)
                states = more[: len(rest)]
        return logits[0].numpy()

    return run


def _onnx(network: Any, x: torch.Tensor) -> Callable[[], Array]:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.onnx"
        write_onnx(Subject("step", network, network.plan(), None), path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    wanted = ["logits", *(name.replace("state.", "next.") for name in names[1:])]
    steps, rest = [*x[0].numpy()[:, None]], [state.numpy() for state in network.tensor_step().initial_state()]

    def run() -> Array:
        states = rest
        for each in steps:
            logits, *states = session.run(wanted, dict(zip(names, [each, *states], strict=True)))
        return logits[0]

    return run


def _c(network: Any, x: torch.Tensor) -> Callable[[], Array]:
    command = compiler()
    if command is None:
        raise RuntimeError("no C compiler is here")
    word = word_of("bench")
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "bench.c", Path(folder) / "bench.so"
        plan = network.plan()
        source.write_text(c_source(plan, "bench"))
        subprocess.run([command, *FLAGS, "-shared", "-fPIC", source, "-o", library, "-lm"], check=True)
        loaded = ctypes.CDLL(str(library))
    size = 4 * (plan.sizes["s"] + plan.sizes["t"]) + 8 * (plan.sizes["p"] + len(plan.layers)) + 1024
    state, out = ctypes.create_string_buffer(size), np.empty(plan.d_output, np.float32)
    step, reset = getattr(loaded, f"{word}_step"), getattr(loaded, f"{word}_reset")
    steps = np.ascontiguousarray(x[0].numpy())
    places = [ctypes.c_void_p(each.ctypes.data) for each in steps]
    target = ctypes.c_void_p(out.ctypes.data)

    def run() -> Array:
        reset(state)
        for place in places:
            step(state, place, target)
        return out

    return run
