"""`--neurons FILE.py`: neurons of one's own for the commands, which know only those of the package otherwise."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from sdn.dynamics import BUILT_IN, Dynamics

__all__ = ["FLAG", "known", "without_neurons"]

FLAG = "--neurons"
_OWN: dict[str, type[Dynamics]] = {}


def known() -> dict[str, type[Dynamics]]:
    """The neurons by the words of the command line: those of the package, then those of one's own."""
    return {**BUILT_IN, **_OWN}


def without_neurons(argv: Sequence[str]) -> list[str]:
    """The words of a command line without ``--neurons FILE.py``; the files are run, and their neurons are then known.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the flag without a file, a file that fails, or one that defines no neuron.
    """
    rest, words = [], iter(argv)
    for word in words:
        if word != FLAG and not word.startswith(f"{FLAG}="):
            rest.append(word)
            continue
        path = word.partition("=")[2] or next(words, None)
        if path is None:
            raise ValueError(f"{FLAG} needs a file, such as {FLAG} mine.py.")
        _OWN.update(_defined(Path(path)))
    return rest


def _defined(path: Path) -> dict[str, type[Dynamics]]:
    """The neurons that a file of Python defines, by their names in small letters."""
    if not path.is_file():
        raise FileNotFoundError(f"{FLAG} {path}: no such file; give the Python file that defines your neuron.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{FLAG} {path}: not a file of Python; its name must end in .py.")
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{FLAG} {path}: running it failed: {type(error).__name__}: {error}") from error
    found = {
        name.lower(): value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Dynamics) and value.__module__ == module.__name__
    }
    if not found:
        raise ValueError(f"{FLAG} {path}: no sdn.Dynamics is defined in it.")
    return found
