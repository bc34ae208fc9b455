"""A network written in the format of another program, tested there, and described beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from loguru import logger
from torch import nn

from sdn.runs.files import writing
from spikingssm.experiments.runfolder import WEIGHTS
from spikingssm.experiments.trained import TrainedModel
from spikingssm.export.accuracy import opened, tested
from spikingssm.export.beside import say, write_contract
from spikingssm.export.c_check import CompilerError, run_c
from spikingssm.export.c_file import c_source, word_of
from spikingssm.export.contract import contract
from spikingssm.export.hub import write_hub
from spikingssm.export.nir_file import export_nir
from spikingssm.export.onnx_file import names_of, run_onnx, write_onnx
from spikingssm.export.program_file import run_program, write_program
from spikingssm.export.subject import Answers, Subject, Vectors, by_steps, compared, subject, vectors
from spikingssm.streaming.int8 import in_int8
from spikingssm.streaming.plan import Plan
from spikingssm.streaming.tensors import TensorStep

__all__ = ["FORMATS", "export"]

FORMATS = ("onnx", "pt2", "c", "nir", "hub")
ENDS = {"onnx": ".onnx", "pt2": ".pt2", "c": ".c"}


def export(
    source: nn.Module,
    to: str | Sequence[str],
    folder: str | Path,
    *,
    name: str | None = None,
    int8: bool = False,
    reach: float = 1.0,
    steps: int = 1000,
    seed: int = 0,
    check: bool = True,
    licence: str | None = None,
    test: Mapping[str, Any] | None = None,
    reader: str | None = None,
) -> list[Path]:
    """Write a network in other formats, with test vectors and a contract beside each file, and compare what it answers.

    Args:
        source: a trained run (`spikingssm.load_model`), or a model.
        to: "onnx", "pt2" (``torch.export``), "c", "nir" or "hub", or several of them.
        folder: to write into; it is made. A hub folder is ``folder`` itself where nothing else is written, else
            ``folder/hub``; it must be empty.
        name: of the files; None is that of the run.
        int8: write linear maps in 8 bits, see `in_int8`; for "onnx", "pt2" and "c".
        reach: of `in_int8`.
        steps: of the test vectors.
        seed: of the test vectors.
        check: run the files and compare; what cannot be run here is said in the contract.
        licence: of the weights, for the card of "hub".
        reader: of a NIR graph, the library that will read it, see `spikingssm.export.READERS`; None is any.
        test: where the test data are, for ``int8``: ``data``, ``root``, ``limit`` of `evaluate`; None tests nothing.

    Returns:
        the files, and the folder for "hub", in the order of ``to``.

    Raises:
        NotImplementedError: a network without a step, or a part that the format has not; the line says which.
        ValueError: an unknown format, or options that do not go together.
        ImportError: a package of the extra ``export`` is missing.
    """
    formats = [to] if isinstance(to, str) else [*to]
    _check(source, formats, int8)
    out, made, ready = Path(folder), [], None
    if out.exists() and not out.is_dir():
        raise ValueError(f"export: {out} is a file; give a folder.")
    for each in formats:
        if each == "hub":
            made.append(_hub(source, out / "hub" if len(formats) > 1 else out, licence, name, steps, seed))
        elif each == "nir":
            made.append(export_nir(subject(source, name), out, steps, seed, check, reader))
        else:
            ready = ready or _ready(source, name, int8, reach, steps, seed, test)
            made.append(_written(each, ready, out, check))
    return made


def _hub(source: nn.Module, folder: Path, licence: str | None, name: str | None, steps: int, seed: int) -> Path:
    """A hub folder; where the network has a step, with its contract and its test vectors."""
    assert isinstance(source, TrainedModel)
    write_hub(source, folder, licence)
    try:
        what = subject(source, name)
    except NotImplementedError as error:
        logger.info(f"{folder} has no contract and no test vectors: {error}")
        return folder
    known = vectors(what, steps, seed)
    beside = write_vectors(known, what.plan, folder / WEIGHTS)
    told = contract(what, what.plan, folder / WEIGHTS, known, beside)
    write_contract(
        {**told, "agreement": {"checked": False, "why": "the folder holds weights and no step"}}, folder / WEIGHTS
    )
    return folder


class _Ready(NamedTuple):
    """What all files of one export share."""

    what: Subject
    known: Vectors
    int8: dict[str, Any] | None
    """What 8 bits did."""


def _ready(
    source: nn.Module, name: str | None, int8: bool, reach: float, steps: int, seed: int, test: Mapping[str, Any] | None
) -> _Ready:
    what = subject(source, name)
    known = vectors(what, steps, seed)
    if not int8:
        return _Ready(what, known, None)
    plan, rounded = in_int8(what.plan, reach)
    mine = known._replace(answers=by_steps(TensorStep(plan), known.x))
    facts = {"maps": [asdict(each) for each in rounded], "against_float32": compared(known.answers, mine.answers)}
    facts |= _accuracy(source, what.plan, plan, test)
    return _Ready(replace(what, name=f"{what.name}-int8", plan=plan), mine, facts)


def _written(to: str, ready: _Ready, out: Path, check: bool) -> Path:
    """One file with what stands beside it."""
    what, known, int8 = ready
    path = out / f"{what.name}{ENDS[to]}"
    {"onnx": write_onnx, "pt2": write_program, "c": write_c}[to](what, path)
    beside = write_vectors(known, what.plan, path)
    told = contract(what, what.plan, path, known, beside)
    told["names"] = _names(to, what)
    told["agreement"] = _agreement(to, what, path, known) if check else {"checked": False, "why": "was not asked for"}
    if int8 is not None:
        told["int8"] = int8
    write_contract(told, path)
    say(path, told)
    return path


def _check(source: nn.Module, formats: list[str], int8: bool) -> None:
    for to in formats:
        if to not in FORMATS:
            raise ValueError(f"export: to must be of {', '.join(FORMATS)}, got {to!r}.")
        if int8 and to not in ENDS:
            raise ValueError(f"export: int8 is for {', '.join(ENDS)}, got {to}; leave it out.")
    if "hub" in formats and not isinstance(source, TrainedModel):
        raise ValueError(
            f"export: a hub folder is of a trained run, got a {type(source).__name__}; give load_model(RUN)."
        )


def write_c(what: Subject, path: Path) -> None:
    """Write the C file."""
    with writing(path) as partial:
        partial.write_text(c_source(what.plan, what.name, _notes(what)))


def _notes(what: Subject) -> str:
    """Lines for the head of the C file."""
    lines = [f"A {type(what.model).__name__}. Its contract is the JSON beside this file."]
    if what.plan.vocab is not None:
        lines.append(f"x is a token, 0 to {what.plan.vocab - 1}: others are read outside of the table.")
    if what.plan.sizes["q"]:
        lines.append("Its linear maps have weights of 8 bits with a scale for each output.")
    return "\n".join(lines)


def _agreement(to: str, what: Subject, path: Path, known: Vectors) -> dict[str, Any]:
    """How the file answers, run by the program that it is for."""
    try:
        found, facts = _run(to, what, path, known)
    except (ImportError, CompilerError) as error:
        return {"checked": False, "why": str(error)}
    return {"checked": True, **facts, **compared(known.answers, found)}


def _run(to: str, what: Subject, path: Path, known: Vectors) -> tuple[Answers, dict[str, Any]]:
    if to == "onnx":
        import importlib.metadata

        return run_onnx(path, known), {"by": f"onnxruntime {importlib.metadata.version('onnxruntime')}"}
    if to == "pt2":
        import torch

        return run_program(path, known, what), {"by": f"torch {torch.__version__}"}
    return run_c(path, known, [*what.plan.layers], what.plan.d_output)


def _accuracy(source: nn.Module, float32: Plan, int8: Plan, test: Mapping[str, Any] | None) -> dict[str, Any]:
    """The test of the run with float32 and with 8 bits."""
    if test is None or not isinstance(source, TrainedModel):
        return {"tested": False, "why": "no test data were named"}
    run = opened(source.folder, test.get("data"), test.get("root"), test.get("limit"))
    return {"tested": True, "float32": tested(run, float32), "int8": tested(run, int8)}


def write_vectors(known: Vectors, plan: Plan, path: Path) -> Path:
    """Test vectors beside a file: x, logits, ``spikes.LAYER``, ``states.NAME``, and the constants w and q."""
    arrays = {"x": known.x, "logits": known.answers.logits, "w": plan.weights(), "q": plan.integers()}
    arrays |= {f"spikes.{name}": each for name, each in known.answers.spikes.items()}
    arrays |= {f"states.{name}": each for name, each in known.answers.states.items()}
    beside = path.with_name(f"{path.name}.vectors.npz")
    with writing(beside) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return beside


def _names(to: str, what: Subject) -> dict[str, Any]:
    """What things are called in a file."""
    if to == "c":
        word = word_of(what.name)
        return {"functions": [f"{word}_reset", f"{word}_step"], "state": f"{word}_state"}
    given, found = names_of(TensorStep(what.plan))
    return {"inputs": given, "outputs": found}
