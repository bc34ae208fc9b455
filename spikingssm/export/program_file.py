"""The step of a network as a file of ``torch.export``, which any process with torch alone can load."""

import warnings
from pathlib import Path
from typing import Any

import torch

from sdn.runs.files import writing
from spikingssm.export.subject import Answers, Subject, Vectors, by_steps
from spikingssm.streaming.tensors import TensorStep

__all__ = ["run_program", "write_program"]


def write_program(what: Subject, path: Path) -> None:
    """Write the file: ``torch.export.load(path).module()(x, *states)`` is what `TensorStep` is, for any batch."""
    step = TensorStep(what.plan).eval()
    batch = torch.export.Dim("batch", min=1)
    states = step.initial_state(2)
    shapes: Any = {"x": {0: batch}, "states": tuple({0: batch} for _ in states)}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(step, (step.inputs(2), *states), dynamic_shapes=shapes)
    with writing(path) as partial, partial.open("wb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights in one storage, which are written one by one
        torch.export.save(program, file)


def run_program(path: Path, vectors: Vectors, what: Subject) -> Answers:
    """What the file answers to test vectors."""
    loaded = torch.export.load(path).module()
    step = TensorStep(what.plan)

    class Loaded:
        """The file with the names that the network has."""

        initial_state, state_names, spike_names = step.initial_state, step.state_names, step.spike_names
        __call__ = staticmethod(loaded)

    return by_steps(Loaded(), vectors.x)
