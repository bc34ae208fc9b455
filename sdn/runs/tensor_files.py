"""Files of tensors and plain values: written whole and sealed, read without trusting them, known by a digest."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdn.runs.files import writing
from sdn.runs.seals import Damaged, check_torch_zip, seal
from sdn.runs.shortage import shortage

__all__ = ["Damaged", "digest", "load_tensors", "save_tensors"]

SHARED = 8
"""Tensors may show the bytes of a file this often: tied weights do, and a bomb does more often."""
DEPTH = 60
"""Containers inside each other; a checkpoint of Lightning has about ten."""


def save_tensors(path: str | os.PathLike[str], content: Any) -> None:
    """Write tensors and plain values with ``torch.save``, sealed (see `sdn.runs.seals`), whole or not at all.

    Args:
        path: of the file; an older one is replaced.
        content: tensors, numbers, text and containers of them.

    Raises:
        OSError: it could not be written; an older file is untouched.
    """
    with writing(path) as partial:
        try:
            torch.save(content, partial)
        except RuntimeError as error:  # what torch's own writer makes of a full disk
            reason = " ".join(str(error).split())[:120]
            raise OSError(f"{path}: could not be written ({reason}); is the disk full?") from None
        seal(partial)


def load_tensors(path: str | os.PathLike[str], *, mmap: bool = False, device: Any = "cpu") -> Any:
    """The tensors and plain values in a file of ``torch.save``; nothing in it is executed.

    The seal is checked, or the checksums of the archive where there is none. No size is believed: what comes back takes
    no more memory than the file has bytes, and each container is in it as often as it is written there.

    Args:
        path: of a file that exists.
        mmap: map the tensors instead of reading them.
        device: where the tensors are put.

    Raises:
        Damaged: a ValueError whose message is the reason, without the name of the file.
        OSError: the file cannot be opened.
        MemoryError: too little memory; torch says it with a RuntimeError.
    """
    path = Path(path)
    with path.open("rb"):
        pass
    try:
        pickled = check_torch_zip(path)
        found = torch.load(path, map_location=device, mmap=mmap or None, weights_only=True)
    except Damaged:
        raise
    except Exception as error:  # the unpickler raises whatever damaged bytes make its steps raise
        if shortage(error) is not None:  # the file may be whole
            raise
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise Damaged(f"{reason}") from None
    _check_amount(found, pickled, path.stat().st_size)
    return found


def digest(arrays: Mapping[str, Tensor | np.ndarray], *texts: str) -> str:
    """The sha256 of named arrays, with their dtypes and shapes, and of further texts, as hexadecimal digits.

    Args:
        arrays: name -> dense tensor or array, in any order.
        texts: what else is meant.
    """
    found = hashlib.sha256(json.dumps(texts).encode())
    for name in sorted(arrays):
        array = arrays[name]
        if isinstance(array, Tensor):
            dtype, shape = str(array.dtype).removeprefix("torch."), list(array.shape)
            flat = array.detach().cpu().contiguous().flatten()
            array = flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)
        else:
            dtype, shape = array.dtype.str, list(array.shape)
        found.update(json.dumps([name, dtype, shape]).encode())
        found.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return found.hexdigest()


def _check_amount(found: Any, pickled: int, size: int) -> None:
    """Refuse tensors that show more bytes than the file has, and containers that hold each other over and over."""
    shown = 0
    for entries, value in enumerate(_walk(found), 1):
        if entries > 4 * pickled:
            raise Damaged("its containers hold each other over and over")
        if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta:
            shown += value.numel() * value.element_size()
            if shown > SHARED * size:
                raise Damaged(
                    f"a tensor of shape {tuple(value.shape)} announces more than the {size} bytes of the file"
                )


def _walk(found: Any) -> Iterator[Any]:
    """Every value of nested containers, as often as it is there."""
    open_ = [iter([found])]
    while open_:
        for value in open_[-1]:
            yield value
            if isinstance(value, Mapping):
                open_.append(iter([*value.keys(), *value.values()]))
            elif isinstance(value, (list, tuple, set, frozenset)):
                open_.append(iter(value))
            else:
                continue
            if len(open_) > DEPTH:
                raise Damaged(f"it has more than {DEPTH} containers inside each other")
            break
        else:
            open_.pop()
