"""How the CPU kernels are compiled, and kept on disk with digests: a file that was cut or changed is made anew."""

import contextlib
import functools
import hashlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numba.core.caching
import numba.core.config
from numba.core import event

from sdn.runs.files import writing

__all__ = ["jit"]

DIGEST = 32
"""Bytes of a sha256."""
caching: Any = numba.core.caching  # numba is typed in parts only
config: Any = numba.core.config


def jit(function: Callable[..., Any]) -> Any:
    """Compile on first call, without the GIL, cached on disk beside the source or in the user's cache if possible.

    NUMBA_DISABLE_JIT changes nothing here: a kernel is made of code that only the compiler can run, so it is compiled
    all the same, and a line on standard error says so.
    """
    before, config.DISABLE_JIT = config.DISABLE_JIT, 0
    kernel: Any = numba.njit(nogil=True, error_model="numpy")(function)
    config.DISABLE_JIT = before
    with contextlib.suppress(RuntimeError):  # no folder to write to
        kernel._cache = _Cache(function)
    return kernel


class _CacheFile(caching.IndexDataCacheFile):
    """numba's two files of a kernel, each with its sha256 behind it.

    numba believes them. A cut one makes it raise at every call from then on, and a changed one is run.
    """

    def save(self, key: Any, data: Any) -> None:
        super().save(key, (key, data))

    def load(self, key: Any) -> Any:
        """What was kept under this key; two processes that compile at once may take one name for two kinds."""
        found = super().load(key)
        return found[1] if found is not None and found[0] == key else None

    def _load_index(self) -> Any:
        return super()._load_index() if _is_whole(self._index_path) else {}

    def _load_data(self, name: str) -> Any:
        return super()._load_data(name) if _is_whole(self._data_path(name)) else None

    @contextlib.contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[io.BytesIO]:
        content = io.BytesIO()
        yield content
        whole = content.getvalue()
        with writing(filepath) as partial:
            partial.write_bytes(whole + hashlib.sha256(whole).digest())


class _Cache(caching.FunctionCache):
    """numba's cache of one function; what goes wrong with it costs time and nothing else."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        # numba looks at the kernel's own file; a kernel also holds what it calls from the files beside it
        self._cache_file = _CacheFile(self._cache_path, self._impl.filename_base, _sources())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # another version of numba may raise anything of what this one has written
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:  # a full disk, say
            _say_once(f"sdn: compiled kernels are not kept on disk ({error.strerror or error})")


def _is_whole(path: str) -> bool:
    content = Path(path).read_bytes() if Path(path).is_file() else b""
    return hashlib.sha256(content[:-DIGEST]).digest() == content[-DIGEST:]


@functools.cache
def _sources() -> str:
    """A hash of all files with compiled functions or with sizes that these share, and of what compiles them."""
    paths = sorted(Path(__file__).parents[1].rglob("*.py"))
    files = [text for path in paths if b"jit" in (text := path.read_bytes()) or path.name == "layout.py"]
    return hashlib.sha256(b"".join([*files, llvmlite.__version__.encode()])).hexdigest()


@contextlib.contextmanager
def _switched_on() -> Iterator[None]:
    """Within this block numba compiles; NUMBA_DISABLE_JIT is for functions that Python can run as well."""
    config.reload_config()  # numba does so while it compiles, where the environment has changed
    before, config.DISABLE_JIT = config.DISABLE_JIT, 0
    if before:
        _say_once("sdn: kernels are compiled under NUMBA_DISABLE_JIT too, plain Python is solver='loop'")
    try:
        yield
    finally:
        config.DISABLE_JIT = before


class _Compiling(event.Listener):
    """Says on stderr that a kernel of ours is being compiled; once for a kernel and what it calls."""

    def __init__(self) -> None:
        self.depth, self.open = 0, contextlib.ExitStack()

    def on_start(self, started: Any) -> None:
        kernel = started.data["dispatcher"]
        function = kernel.py_func
        self.depth += 1
        if self.depth == 1 and (function.__module__ or "").startswith(("sdn.", "sdn_generated")):
            kept = "no folder to keep it in" if isinstance(kernel._cache, caching.NullCache) else "kept on disk"
            text = f"sdn: compiling {_label(function)} (once for these types, 1 to 10 s; {kept})"
            print(text, file=sys.stderr, flush=True)
            self.open.enter_context(_switched_on())

    def on_end(self, _: Any) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.open.close()


def _label(function: Callable[..., Any]) -> str:
    """What a kernel is of: "lif forward" of the generated ``sdn_generated_lif_forward_65b6``, "scan" elsewhere."""
    module = function.__module__
    if module.startswith("sdn_generated_"):
        return " ".join(module.split("_")[2:-1])
    return f"{module.split('.')[2]} {function.__name__.strip('_')}" if module.count(".") > 2 else function.__name__


_register: Any = event.register
_register("numba:compile", _Compiling())  # numba compiles one function at a time


@functools.cache
def _say_once(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
