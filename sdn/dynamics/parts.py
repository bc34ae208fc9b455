"""Whether the class of a user's own neuron has the parts that a neuron needs."""

from sdn.checks.arguments import ArgumentError

__all__ = ["check_class"]


def check_class(kind: type) -> None:
    """Refuse a neuron that lacks a part.

    Args:
        kind: a subclass of `sdn.Dynamics`.

    Raises:
        ArgumentError: the sentence says which part, and how to write it.
    """
    name = kind.__name__
    if not hasattr(kind, "__dataclass_fields__"):
        raise ArgumentError(f"{name}: write @dataclasses.dataclass(frozen=True) above the class.")
    if not hasattr(getattr(kind, "State", None), "_fields"):
        raise ArgumentError(f"{name}: needs State, the NamedTuple of its state, whose fields are (B, H) tensors.")
    if not hasattr(kind, "threshold") and "threshold" not in kind.__dataclass_fields__:
        raise ArgumentError(f"{name}: needs a threshold, as a field, threshold: float = 1.0, or as a constant.")
