"""States as torch's trees: named tuples that a file of ``torch.export`` can name."""

from typing import Any, TypeVar

from torch.utils import _pytree as trees

__all__ = ["as_tree"]

Kind = TypeVar("Kind", bound=type)


def as_tree(kind: Kind) -> Kind:
    """Let ``torch.export.save`` write a NamedTuple class; what reads the file must have imported the class.

    A class that cannot be found by its name, such as one inside of a function, is left as it was.
    """
    name = f"{kind.__module__}.{kind.__qualname__}"
    register: Any = getattr(trees, "_register_namedtuple", None)
    if register is not None and kind not in trees.SUPPORTED_NODES and "<locals>" not in name:
        register(kind, serialized_type_name=name)
    return kind
