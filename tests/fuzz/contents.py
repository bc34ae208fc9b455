"""Contents as short plain values, so that two of them can be compared."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["content", "rows"]


def content(value: Any) -> Any:
    """Nested values with a digest for each tensor or array."""
    if isinstance(value, torch.Tensor):
        if value.is_meta or value.layout != torch.strided:
            return f"{value.layout}{tuple(value.shape)}"
        value = value.detach().numpy() if value.dtype != torch.bfloat16 else value.float().numpy()
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]
        return f"{value.dtype}{value.shape}{digest}"
    if isinstance(value, Mapping):
        return {str(key): content(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [content(inner) for inner in value]
    return value if isinstance(value, (int, float, str, bool, type(None))) else repr(value)


def rows(data: Any) -> Any:
    """All rows of a data module as a network gets them, its facts, and what was fitted."""
    parts = [data.train_set, data.val_set, data.test_set]
    return content([*(part.__getitems__(list(range(min(40, len(part))))) for part in parts), data.facts(), data.fitted])
