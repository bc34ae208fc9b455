"""The step of a network as an ONNX file: plain operators, named states, any batch."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdn.runs.files import writing
from spikingssm.export.needed import needed
from spikingssm.export.subject import Answers, Subject, Vectors
from spikingssm.streaming.tensors import TensorStep

__all__ = ["OPSET", "names_of", "run_onnx", "write_onnx"]

OPSET = 18


def names_of(step: TensorStep) -> tuple[list[str], list[str]]:
    """Names of what goes in and of what comes out, in order."""
    given = ["x", *(f"state.{name}" for name in step.state_names)]
    found = ["logits", *(f"next.{name}" for name in step.state_names)]
    return given, [*found, *(f"spikes.{name}" for name in step.spike_names)]


def write_onnx(what: Subject, path: Path) -> None:
    """Write the file.

    Args:
        what: the network.
        path: of the file; an older one is replaced.

    Raises:
        ImportError: onnx or onnxscript is missing.
    """
    needed("onnx", "onnxscript")
    step = TensorStep(what.plan).eval()
    given, found = names_of(step)
    batch = torch.export.Dim("batch", min=1)
    states = step.initial_state(2)
    shapes: Any = {"x": {0: batch}, "states": tuple({0: batch} for _ in states)}
    with _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            step, (step.inputs(2), *states), dynamo=True, input_names=given, output_names=found,
            dynamic_shapes=shapes, opset_version=OPSET, verbose=False,
        )  # fmt: skip
    with writing(path) as partial:
        program.save(str(partial))


def run_onnx(path: Path, vectors: Vectors) -> Answers:
    """What the file answers to test vectors, by onnxruntime on one core.

    Raises:
        ImportError: onnxruntime is missing.
    """
    (runtime,) = needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = {each.name: each for each in session.get_inputs()}
    kinds = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
    states = {
        name: np.zeros((1, each.shape[1]), kinds[each.type]) for name, each in given.items() if name.startswith("state")
    }
    outputs = [each.name for each in session.get_outputs()]
    logits, spikes = [], []
    for row in vectors.x.astype(kinds[given["x"].type]):
        found = dict(zip(outputs, session.run(None, {"x": row[None], **states}), strict=True))
        states = {name: found[f"next.{name.removeprefix('state.')}"] for name in states}
        logits.append(found["logits"][0])
        spikes.append([found[name][0].astype(np.uint8) for name in outputs if name.startswith("spikes.")])
    layers = [name.removeprefix("spikes.") for name in outputs if name.startswith("spikes.")]
    fired = {name: np.stack(each) for name, each in zip(layers, zip(*spikes, strict=True), strict=True)}
    return Answers(np.stack(logits), fired, {name.removeprefix("state."): each[0] for name, each in states.items()})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter says of packages that nobody needs here."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
