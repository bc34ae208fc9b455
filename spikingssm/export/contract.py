"""What a reader of an exported file must know, in one JSON beside it: equations, order, states, scaling, agreement."""

import hashlib
import inspect
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdn.compiler.programs import program
from sdn.runs.files import read_json, versions
from spikingssm.datasets.interface import FILE, Interface
from spikingssm.export.subject import Subject, Vectors
from spikingssm.models.base import answers_of, patch_of
from spikingssm.streaming.loops import LOOPS
from spikingssm.streaming.plan import Part, Plan
from spikingssm.streaming.tensors import neuron_lines

__all__ = ["contract"]

VERSION = 1
READING = (
    "Python on flat arrays: x is what a step reads, out what it answers, w and q the constants (arrays of these names "
    "stand in the file of test vectors), s and p the states, n the counts of spikes, t room for a step. `x, 64` is the "
    "part of x that begins at 64. F is float32, and TINY the smallest normal number of it. In the equations of a "
    "neuron real(condition, x) is 1 where it holds, else 0."
)
PREPARED = {
    "numbers": "x = ((raw / divide - mean) / std) * scale; mean and std of each channel, none where they are empty; "
    "order, where there is one, says which raw step comes at which place",
    "audio": "samples in [-1, 1] at `hertz`, of one channel, every `down`-th of them (behind a filter), divided by "
    "`scaling`; `masked` says whether the network is told where sound shorter than `length` ends, or reads zeros there",
    "spikes": "spikes of the model of the ear that is described here, in bins of time",
    "tokens": "the number of each token",
}
"""How raw data become x, by the kind of inputs."""
ORDER = (
    "Within a step the lines of `calls` run from the first to the last. A neuron takes its current, computes its "
    "potential from the state of the step before and this current, compares it with the threshold, spikes in this "
    "same step, and then moves its state on; a reset is part of that and acts on the next step."
)


def contract(what: Subject, plan: Plan, path: Path, vectors: Vectors, vector_file: Path) -> dict[str, Any]:
    """The facts of one exported file that follow from the network; agreement and measurements come on top.

    Args:
        what: the network.
        plan: what was written, with its own weights.
        path: of the file.
        vectors: its test vectors.
        vector_file: theirs, written.
    """
    return {
        "contract": VERSION,
        "file": {"name": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path)},
        "made_by": {**versions(), "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])},
        "network": {
            "kind": type(what.model).__name__,
            "dtype_of_the_parameters": str(next(what.model.parameters()).dtype).removeprefix("torch."),
            "parameters": sum(each.numel() for each in what.model.parameters()),
            "layers": dict(plan.layers),
            "solver_of_the_training": _solver(what),
            "neuron": "exact, whatever the solver of the training was",
        },
        "input": {"name": "x", **_shape(plan), "preparation": _preparation(what)},
        "output": {"name": "logits", "shape": ["batch", plan.d_output], "dtype": "float32", **_answers(what)},
        "states": _states(plan),
        "step": {
            "dt": 1,
            "unit": "steps of the input; a neuron's own dt, where it has one, is among its numbers",
            "order": ORDER,
            "calls": [str(call) for call in plan.calls],
            "loops": {word: inspect.getsource(LOOPS[word]) for word in plan.loops()},
            "how_to_read_them": READING,
            "neurons": {name: _neuron(plan, name) for name in plan.neurons},
            "constants": [{"array": p.array, "at": p.start, "shape": list(v.shape)} for p, v in plan.constants.items()],
            "initial_state": "zeros, of every state",
            "input_gain": "in the equations: what stands at `current`",
            "normalisation": "batch norm is folded into `scaled`; layer norm is computed in every step",
            "delays": "none, in steps; a recurrent connection brings the spikes of the step before",
        },
        "weights": {"dtype": "int8 maps with a float32 scale for each output" if plan.sizes["q"] else "float32"},
        "vectors": {
            "file": vector_file.name,
            "sha256": _sha256(vector_file),
            "steps": len(vectors.x),
            "seed": vectors.seed,
            "what": "tokens drawn alike" if plan.vocab is not None else "noise, mean 0 and deviation 1",
            "spike_rates": {name: float(each.mean()) for name, each in vectors.answers.spikes.items()},
        },
        "step_against_whole_sequence": vectors.whole,
        **({} if what.trained is None else {"run": _run(what)}),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shape(plan: Plan) -> dict[str, Any]:
    tokens = plan.vocab is not None
    found: dict[str, Any] = {"shape": ["batch", plan.d_input], "dtype": "int64" if tokens else "float32"}
    return {**found, "tokens": plan.vocab} if tokens else found


def _states(plan: Plan) -> list[dict[str, Any]]:
    kinds = {"s": "float32", "p": "float64"}
    return [
        {"name": name, "shape": ["batch", part.size], "dtype": kinds[part.array], "order": _order(plan, name, part)}
        for name, part in plan.states.items()
    ]


def _order(plan: Plan, name: str, part: Part) -> str:
    """What stands where in a state."""
    for call in plan.calls:
        if part not in call.arguments:
            continue
        if call.word == "modes":
            count, channels = call.arguments[-2:]
            return f"({count} modes, real and imaginary part, {channels} channels)"
        if call.word == "resonated":
            return f"(real part, imaginary part, what spikes add to the threshold; {part.size // 3} neurons)"
        if call.word == "averaged" and part.array == "p":
            return "(number of steps, then the sum of each value)"
        if call.word in plan.neurons:
            fields = program(plan.neurons[call.word].key).step.states
            return f"({', '.join(fields)}; {part.size // len(fields)} neurons)"
    return f"({part.size} values)"


def _neuron(plan: Plan, name: str) -> dict[str, Any]:
    found = program(plan.neurons[name].key).step
    names, lines = neuron_lines(plan.neurons[name].key)
    plain = [each[:-1] for each in names]
    for long, short in sorted(zip(names, plain, strict=True), key=lambda pair: -len(pair[0])):
        lines = [line.replace(long, short) for line in lines]
    return {
        "kind": found.name,
        "states": list(found.states),
        "rows": list(found.rows),
        "numbers": dict(zip(found.numbers, plan.neurons[name].numbers, strict=True)),
        "equations": lines,
        "comparison": ">=" if found.at_threshold else ">",
    }


def _solver(what: Subject) -> str | None:
    return None if what.trained is None else str(what.trained.facts.get("solver"))


def _interface(what: Subject) -> Interface | None:
    return None if what.trained is None else what.trained.interface


def _preparation(what: Subject) -> Any:
    """How raw data become x."""
    found = _interface(what)
    if found is None or found.inputs is None:
        return "none is known: x is what the network reads"
    kind = found.inputs.kind
    return {"kind": kind, "how": PREPARED.get(kind, ""), **asdict(found.inputs), **_frames(what)}


def _frames(what: Subject) -> dict[str, Any]:
    """How samples become the inputs of one step, of a network that reads several at once."""
    patch = patch_of(what.model)
    if patch == 1:
        return {}
    return {"frame": f"x of one step is {patch} samples, one after another; the last frame ends in zeros"}


def _answers(what: Subject) -> dict[str, Any]:
    found = _interface(what)
    each = "of all steps so far"
    if answers_of(what.model) == "step":
        each = "of this step; for a whole sequence the program answers with their mean over its steps"
    said: dict[str, Any] = {"meaning": f"logits {each}"}
    if found is not None and found.d_output <= 1000:
        said["classes"] = [found.class_name(number) for number in range(found.d_output)]
    return said


def _run(what: Subject) -> dict[str, Any]:
    """Where the weights come from."""
    assert what.trained is not None
    facts, trained = what.trained.facts, what.trained
    kept = ("name", "seed", "epochs", "device", "val", "dataset", "command", "commit", "versions")
    test = {key: value for key, value in facts.get("test", {}).items() if isinstance(value, (int, float))}
    return {
        **{key: facts[key] for key in kept if key in facts},
        "test": test,
        "weights": "best epoch, chosen by the validation" if "val" in facts else "best checkpoint",
        "reads": read_json(trained.folder / FILE) if (trained.folder / FILE).is_file() else None,
    }
