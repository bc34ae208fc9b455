"""A written C file, compiled and compared: what it answers, its size, and the time of a step."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from spikingssm.export.c_file import FLAGS, word_of
from spikingssm.export.subject import Answers, Vectors

__all__ = ["CompilerError", "compiler", "run_c"]

STRICT = ("-Wall", "-Wextra", "-Werror")
LONGEST = 600.0
"""Seconds that a compiler or a program may take."""


class CompilerError(RuntimeError):
    """No C compiler is here, or it does not take a file."""


def compiler() -> str | None:
    """The C compiler that is here, or None."""
    return next((found for name in ("gcc", "clang", "cc") if (found := shutil.which(name))), None)


def run_c(path: Path, vectors: Vectors, layers: list[str], outputs: int) -> tuple[Answers, dict[str, Any]]:
    """Compile a file without a warning, and what it answers to test vectors; its spikes are sums.

    Args:
        path: of the file.
        vectors: steps.
        layers: names of the layers, in order.
        outputs: logits.

    Returns:
        the answers, and facts: the compiler and its flags, bytes of code with constants, microseconds of a step.

    Raises:
        CompilerError: no compiler, or one that does not take the file; it has the first lines that it says.
    """
    command = compiler()
    if command is None:
        raise CompilerError("no C compiler is here (gcc, clang or cc)")
    macro = f"{word_of(path.stem).upper()}_MAIN"
    with tempfile.TemporaryDirectory() as folder:
        program, alone = Path(folder) / "step", Path(folder) / "step.o"
        _call([command, *FLAGS, *STRICT, f"-D{macro}", str(path.resolve()), "-o", str(program), "-lm"])
        _call([command, *FLAGS, *STRICT, "-c", str(path.resolve()), "-o", str(alone)])
        given = np.ascontiguousarray(vectors.x, np.float32).tobytes()
        told = subprocess.run([program], input=given, capture_output=True, check=True, timeout=LONGEST)
        size = alone.stat().st_size
    *counts, time = told.stderr.decode().splitlines()
    fired = {name: np.array([int(line.rsplit(" ", 1)[1])]) for name, line in zip(layers, counts, strict=True)}
    logits = np.frombuffer(told.stdout, np.float32).reshape(-1, outputs)
    version = _call([command, "--version"]).splitlines()[0]
    microseconds = float(re.findall(r"[\d.]+", time)[-1])
    facts = {"compiler": version, "flags": " ".join([*FLAGS, *STRICT]), "object_bytes": size}
    return Answers(logits, fired, {}), {**facts, "microseconds_a_step": microseconds}


def _call(words: list[str]) -> str:
    found = subprocess.run(words, capture_output=True, text=True, timeout=LONGEST)
    if found.returncode:
        first = "; ".join(found.stderr.splitlines()[:3]) or "it says nothing"
        raise CompilerError(f"{words[0]} ended with {found.returncode}: {first}")
    return found.stdout
