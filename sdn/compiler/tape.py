"""Recording a step: the operations that torch carries out while a function of a neuron runs once on small tensors."""

import contextlib
import linecache
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sdn.compiler.graph import Builder, Node

__all__ = ["Refused", "Tape"]

HERE = str(Path(__file__).parents[1])
TORCH = str(Path(torch.__file__).parent)


class Refused(NotImplementedError):
    """A step that cannot be compiled; the message names the operation and its line."""


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within ``with tape:`` every operation on a known tensor is recorded as a node.

    Tensors are known by being given (`given`) or by coming out of an operation on known ones. Constant tensors of one
    number become plain numbers, those of (H,) leaves of their own, which `constants` holds by name.

    Args:
        builder: makes the nodes.
        who: the neuron's name, for errors.
        backward: whether it is autograd that is recorded, which may write in place.

    Raises:
        Refused: an operation that is not elementwise, that reads a number out of a tensor, or that writes in place.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler for a mode that no graph contains, which takes four seconds

    def __init__(
        self, builder: Builder, who: str, backward: bool = False, dtype: torch.dtype | None = torch.float64
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.builder, self.who, self.backward, self.dtype = builder, who, backward, dtype
        self.constants: dict[str, Tensor] = {}
        self._nodes: dict[int, Node] = {}
        self._alive: list[Any] = []  # an id belongs to a tensor only as long as that lives
        self._silent = False

    def given(self, tensor: Tensor, node: Node) -> Tensor:
        """Make a tensor known."""
        self._nodes[id(tensor)] = node
        self._alive.append(tensor)
        return tensor

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Within this block operations are carried out and not recorded."""
        self._silent = True
        try:
            yield
        finally:
            self._silent = False

    def node(self, value: Any) -> Node:
        """What a tensor or a number is on this tape."""
        if isinstance(value, Tensor):
            return self._nodes[id(value)] if id(value) in self._nodes else self._constant(value)
        return self.builder.constant(value)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Carry out one operation and record it."""
        kwargs = kwargs or {}
        if self._silent:
            return func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise Refused(self._text(f"draws random numbers ({name}), other ones in every step"))
        if not any(id(arg) in self._nodes for arg in _tensors(args, kwargs)) and name not in READS:
            return self._kept(func(*args, **kwargs))
        if name in READS:
            raise Refused(self._text("reads a number out of a tensor, as a branch on data does"))
        if func._schema.is_mutable and not self.backward:
            raise Refused(self._text(f"changes a tensor in place ({name})"))
        out = func(*args, **kwargs)
        if not isinstance(out, Tensor):
            raise Refused(self._text(f"uses {name}, which gives more than one tensor"))
        if not self.backward:
            self._check_precision(name, args, kwargs, out)
        self._check_width(name, args, out)
        self._alive.append(out)
        plain = name.removesuffix("_") if func._schema.is_mutable else name  # autograd fills its own tensors in place
        self._nodes[id(out)] = self._recorded(plain, args, kwargs, out)
        return out

    def _kept(self, out: Any) -> Any:
        self._alive.append(out)
        return out

    def _check_precision(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
        """Refuse what torch computes in another precision than that of the state, or rounds once instead of twice."""
        if kwargs.get("alpha", 1) != 1 or (len(args) > 2 and name == "rsub" and args[2] != 1):
            raise Refused(self._text(f"uses {name} with alpha; write the product"))
        if name == "addcmul" and kwargs.get("value", 1) != 1:
            raise Refused(self._text("uses addcmul with a value; write the product"))
        if not (out.is_floating_point() or out.is_complex() or out.dtype is torch.bool or self._counts(args)):
            raise Refused(self._text(f"makes whole numbers ({name}); use torch.trunc or torch.floor"))
        if self.dtype is None or name == "_to_copy":  # copies have a rule of their own
            return
        if out.dtype.is_floating_point and out.dtype != self.dtype and out.ndim:
            raise Refused(
                self._text(
                    f"computes in {out.dtype} where the state is in {self.dtype} ({name}), as torch does for a "
                    "condition and a plain number; write condition.to(x.dtype)"
                )
            )

    def _counts(self, args: tuple[Any, ...]) -> bool:
        """Whether whole numbers come of conditions alone, so that nothing is cut off."""
        return all(not x.dtype.is_floating_point for x in args if isinstance(x, Tensor))

    def _recorded(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Node:
        if name == "detach" and not self.backward:
            return self.builder.make("detach", *self.reals(args[0]))
        if name in SAME:
            return self._moved(name, args[0], out)
        if name in FILLED:
            filled = FILLED[name]
            return self.builder.constant(args[1] if filled is None else filled)
        if name not in RULES:
            raise Refused(self._text(f"uses {name}, which is not one of the elementwise operations that are compiled"))
        if out.dtype is torch.bool and name in CONDITIONS:
            name = CONDITIONS[name]
        rule = RULES[name]
        try:
            return rule(self, *args, **kwargs)
        except TypeError:
            raise Refused(self._text(f"uses {name} in a form that is not compiled")) from None

    def _moved(self, name: str, x: Tensor, out: Tensor) -> Node:
        node = self.node(x)
        if name == "_to_copy" and out.dtype.is_floating_point and x.dtype.is_floating_point and out.dtype != x.dtype:
            raise Refused(self._text(f"changes the precision from {x.dtype} to {out.dtype}"))
        same_channels = out.shape[-1:] == x.shape[-1:] and (name == "expand" or out.numel() == x.numel())
        if out.shape != x.shape and not same_channels and x.numel() != 1:
            raise Refused(self._text(f"uses {name} to make shape {tuple(out.shape)} of {tuple(x.shape)}"))
        if out.dtype is torch.bool and node.kind == "real":
            return self.builder.make("ne", node, self.builder.constant(0.0), kind="bool")
        return self.real(node) if out.dtype is not torch.bool else node

    def _check_width(self, name: str, args: tuple[Any, ...], out: Tensor) -> None:
        """Refuse what has another shape than its operands, such as a sum over channels."""
        shapes = [x.shape for x in args if isinstance(x, Tensor)]
        if name not in SAME and shapes and tuple(out.shape) != np.broadcast_shapes(*map(tuple, shapes)):
            raise Refused(self._text(f"uses {name}, which makes shape {tuple(out.shape)} of {tuple(shapes[0])}"))

    def real(self, node: Node) -> Node:
        """A bool as 1 or 0."""
        return self.builder.make("real", node) if node.kind == "bool" else node

    def reals(self, *values: Any) -> list[Node]:
        """Operands as real nodes."""
        return [self.real(self.node(value)) for value in values]

    def conditions(self, *values: Any) -> list[Node]:
        """Operands as bool nodes."""
        nodes = [self.node(value) for value in values]
        zero = self.builder.constant(0.0)
        return [n if n.kind == "bool" else self.builder.make("ne", n, zero, kind="bool") for n in nodes]

    def _constant(self, value: Tensor) -> Node:
        if value.is_complex():
            raise Refused(self._text("uses complex numbers; keep real and imaginary part as two fields"))
        with self.silent():
            value = value.detach().reshape(-1)
            if not value.numel():
                raise Refused(self._text("makes an empty tensor"))
            if bool((value == value[0]).all()) or value.numel() == 1:
                return self.builder.constant(value[0].item())
            known = self.constants.items()
            same = (name for name, other in known if other.shape == value.shape and torch.equal(other, value))
            name = next(same, f"constant{len(known)}")
        self.constants.setdefault(name, value)
        return self.builder.leaf(name)

    def _text(self, what: str) -> str:
        return f"{self.who} {what}{_line()}"


def _line() -> str:
    """Where the code of the neuron stands at this moment."""
    for frame in reversed(traceback.extract_stack()):
        inside = frame.filename.startswith((TORCH, HERE)) and "/dynamics/" not in frame.filename
        if not inside and not frame.filename.startswith("<"):
            text = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
            return f" (line {frame.lineno} of {Path(frame.filename).name}: {text})"
    return ""


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    flat = [*args, *kwargs.values()]
    return [x for each in flat for x in (each if isinstance(each, (list, tuple)) else [each]) if isinstance(x, Tensor)]


READS = frozenset({"_local_scalar_dense", "is_nonzero", "item", "nonzero", "equal"})
SAME = frozenset({
    "detach", "alias", "clone", "view", "_unsafe_view", "expand", "_to_copy", "lift_fresh", "lift_fresh_copy", "to",
    "contiguous", "reshape", "_reshape_alias", "view_as", "expand_as", "positive",
})  # fmt: skip
CONDITIONS = {"add": "logical_or", "maximum": "logical_or", "mul": "logical_and", "minimum": "logical_and"}
"""What arithmetic on conditions is, whose result is a condition again."""
FILLED: dict[str, float | None] = {
    "zeros_like": 0.0, "ones_like": 1.0, "new_zeros": 0.0, "new_ones": 1.0, "full_like": None,
}  # fmt: skip


def _binary(op: str, kind: Any = "real") -> Callable[..., Node]:
    return lambda tape, a, b: tape.builder.make(op, *tape.reals(a, b), kind=kind)


def _unary(op: str) -> Callable[..., Node]:
    return lambda tape, a: tape.builder.make(op, *tape.reals(a))


def _logical(op: str) -> Callable[..., Node]:
    return lambda tape, *values: tape.builder.make(op, *tape.conditions(*values), kind="bool")


def _sum(tape: Tape, a: Any, b: Any, *, alpha: float = 1) -> Node:
    left, right = tape.reals(a, b)
    return tape.builder.make("add", left, tape.builder.make("mul", tape.builder.constant(alpha), right))


def _difference(tape: Tape, a: Any, b: Any, alpha: float = 1) -> Node:
    left, right = tape.reals(a, b)
    return tape.builder.make("sub", left, tape.builder.make("mul", tape.builder.constant(alpha), right))


def _quotient(tape: Tape, a: Any, b: Any, *, rounding_mode: str | None = None) -> Node:
    node = tape.builder.make("div", *tape.reals(a, b))
    return node if rounding_mode is None else tape.builder.make(rounding_mode, node)


def _power(tape: Tape, a: Any, b: Any) -> Node:
    base, exponent = tape.reals(a, b)
    make = tape.builder.make
    if exponent.is_constant:
        squared = make("mul", base, base)
        easy = {1.0: base, 2.0: squared, 3.0: make("mul", squared, base), 0.5: make("sqrt", base)}
        if exponent.value in easy:
            return easy[exponent.value]
        if exponent.value == -1:
            return make("reciprocal", base)
        if exponent.value == -2:
            return make("reciprocal", squared)
    return make("power", base, exponent)


def _clamp(tape: Tape, a: Any, min: Any = None, max: Any = None) -> Node:
    (node,) = tape.reals(a)
    node = node if min is None else tape.builder.make("maximum", node, *tape.reals(min))
    return node if max is None else tape.builder.make("minimum", node, *tape.reals(max))


def _where(tape: Tape, condition: Any, a: Any, b: Any) -> Node:
    return tape.builder.make("where", *tape.conditions(condition), *tape.reals(a, b))


def _curve_backward(first: Callable[..., Node]) -> Callable[..., Node]:
    """What tanh and the logistic curve send back: ``a`` times ``first`` of the curve's value."""

    def rule(tape: Tape, a: Any, value: Any) -> Node:
        grad, y = tape.reals(a, value)
        return tape.builder.make("mul", grad, first(tape.builder.make, tape.builder.constant(1.0), y))

    return rule


def _threshold_backward(tape: Tape, grad: Any, x: Any, threshold: float) -> Node:
    g, node, limit = tape.reals(grad, x, threshold)
    below = tape.builder.make("le", node, limit, kind="bool")
    return tape.builder.make("where", below, tape.builder.constant(0.0), g)


def _relu(tape: Tape, a: Any) -> Node:
    return tape.builder.make("maximum", *tape.reals(a), tape.builder.constant(0.0))


def _is_nan(tape: Tape, a: Any) -> Node:
    (node,) = tape.reals(a)
    return tape.builder.make("ne", node, node, kind="bool")


RULES: dict[str, Callable[..., Node]] = {
    "add": _sum,
    "sub": _difference,
    "rsub": lambda tape, a, b, alpha=1: _difference(tape, b, a, alpha),
    "mul": _binary("mul"),
    "div": _quotient,
    "pow": _power,
    "square": lambda tape, a: _power(tape, a, 2.0),
    "clamp": _clamp,
    "clamp_min": lambda tape, a, min: _clamp(tape, a, min=min),
    "clamp_max": lambda tape, a, max: _clamp(tape, a, max=max),
    "where": _where,
    "masked_fill": lambda tape, a, mask, value: _where(tape, mask, value, a),
    "relu": _relu,
    "threshold_backward": _threshold_backward,
    "minimum": _binary("minimum"),
    "maximum": _binary("maximum"),
    "rsqrt": lambda tape, a: tape.builder.make("reciprocal", tape.builder.make("sqrt", *tape.reals(a))),
    "tanh_backward": _curve_backward(lambda make, one, y: make("sub", one, make("mul", y, y))),
    "sigmoid_backward": _curve_backward(lambda make, one, y: make("mul", make("sub", one, y), y)),
    "addcmul": lambda tape, a, b, c, value=1: _addcmul(tape, a, b, c, value),
    "sgn": _unary("sign"),
    "isnan": _is_nan,
    **{name: _unary(name) for name in (
        "neg", "reciprocal", "abs", "sqrt", "exp", "expm1", "log", "log1p", "sin", "cos", "tan", "tanh", "sinh", "cosh",
        "sigmoid", "erf", "atan", "sign", "floor", "ceil", "trunc", "round",
    )},
    **{name: _binary(name, "bool") for name in ("gt", "ge", "lt", "le", "eq", "ne")},
    **{f"{start}_{word}": _logical(word) for start in ("logical", "bitwise") for word in ("and", "or", "not")},
}  # fmt: skip


def _addcmul(tape: Tape, a: Any, b: Any, c: Any, value: float = 1) -> Node:
    first, left, right = tape.reals(a, b, c)
    make = tape.builder.make
    scaled = make("mul", make("mul", tape.builder.constant(value), left), right)
    return make("add", first, scaled)
