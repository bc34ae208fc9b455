"""Generated source as real modules: files in a cache folder that a person can read and that numba can keep code beside.

What runs is always the text that was just made, never what a file holds: the file is for readers, tracebacks and
numba's cache. One that differs, is cut, or is being written by another process is simply replaced, whole, by a rename.
"""

import contextlib
import functools
import hashlib
import linecache
import os
import sys
import types
from pathlib import Path
from typing import Any

from sdn.runs.files import writing

__all__ = ["digest_of", "folder", "module_of"]


def folder() -> Path:
    """Where generated files lie: ``SDN_CACHE_DIR``, or ``sdn/generated`` in the user's cache folder."""
    given = os.environ.get("SDN_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(given).expanduser() if given else Path(base).expanduser() / "sdn" / "generated"


def digest_of(*texts: str) -> str:
    """Twelve digits that stand for some texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


@functools.cache
def module_of(name: str, text: str) -> Any:
    """The module of a generated text, whose file is ``name-digest.py``; made once in a process.

    Where no file can be written, the module lives in memory, and its code is compiled anew in every process.
    """
    stem = f"{name}-{digest_of(text)}"
    path = folder() / f"{stem}.py"
    known = f"sdn_generated_{stem.replace('-', '_')}"
    module = types.ModuleType(known, text.split('"""')[1] if '"""' in text else None)
    with contextlib.suppress(OSError, RuntimeError):  # a home that is read-only, or none at all
        if not path.is_file() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            with writing(path) as partial:
                partial.write_text(text)
    if not path.is_file():
        path = Path(f"<{stem}>")
    module.__file__, module.__source__ = str(path), text  # type: ignore[attr-defined]
    linecache.cache[str(path)] = len(text), None, text.splitlines(keepends=True), str(path)
    sys.modules[known] = module
    exec(compile(text, str(path), "exec"), module.__dict__)
    return module
