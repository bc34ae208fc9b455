"""The operations that a step may consist of, and how each is written: in plain Python, for numba and for Triton.

All work element by element. `exact` ones are rounded by every backend as torch rounds them; the others, such as exp,
are good to about two units in the last place, so that spikes agree up to rounding where one stands inside the loop.
"""

from typing import NamedTuple

__all__ = ["OPERATIONS", "Operation"]


class Operation(NamedTuple):
    """How one operation is written; ``{0}``, ``{1}``, ``{2}`` are its operands."""

    python: str
    """On floats and on tensors, with the functions of `sdn.compiler.arithmetic`; the last one of "real" and of
    "where" has the dtype."""
    numba: str
    """On scalars of one type, with the functions of `sdn.ops.common.functions_cpu`, ``math`` and ``np``."""
    triton: str
    """On tiles, with the functions of `sdn.ops.common.functions_gpu` and of ``tl``; ``x`` is a tile of the type."""
    precedence: int = 10
    """Of the numba and the Python form as in Python's grammar: 10 binds closest."""
    exact: bool = True
    """Whether every backend rounds it as torch does."""


def _same(text: str, precedence: int = 10, exact: bool = True) -> Operation:
    return Operation(text, text, text, precedence, exact)


def _function(name: str, operands: int = 1, exact: bool = False) -> Operation:
    return _same(f"{name}({', '.join(f'{{{i}}}' for i in range(operands))})", exact=exact)


OPERATIONS: dict[str, Operation] = {
    "add": _same("{0} + {1}", 5),
    "sub": _same("{0} - {1}", 5),
    "mul": _same("{0} * {1}", 6),
    "div": Operation("divide({0}, {1})", "{0} / {1}", "divide({0}, {1})", 6),
    "neg": _same("-{0}", 7),
    "detach": _same("({0})"),  # no gradient goes through it
    "reciprocal": Operation("1 / {0}", "F(1.0) / {0}", "reciprocal({0})", 6),
    "abs": Operation("abs({0})", "abs({0})", "tl.abs({0})"),
    "sqrt": Operation("sqrt({0})", "np.sqrt({0})", "root({0})", exact=False),  # torch rounds some the other way
    "sign": _function("sign", exact=True),
    **{name: Operation(f"{python}({{0}})", f"np.{numpy}({{0}})", f"{python}({{0}})") for name, python, numpy in (
        ("floor", "floor", "floor"), ("ceil", "ceil", "ceil"), ("trunc", "trunc", "trunc"),
        ("round", "round_even", "rint"),
    )},
    "minimum": _function("minimum", 2, exact=True),
    "maximum": _function("maximum", 2, exact=True),
    "where": Operation("where({0}, {1}, {2}, {3})", "({1} if {0} else {2})", "tl.where({0}, {1}, {2})"),
    "real": Operation("real({0}, {1})", "(F(1.0) if {0} else F(0.0))", "real({0}, x)"),
    "gt": _same("{0} > {1}", 2),
    "ge": _same("{0} >= {1}", 2),
    "lt": _same("{0} < {1}", 2),
    "le": _same("{0} <= {1}", 2),
    "eq": _same("{0} == {1}", 2),
    "ne": _same("{0} != {1}", 2),
    "and": _same("{0} & {1}", 4),
    "or": _same("{0} | {1}", 3),
    "not": Operation("not_({0})", "(not {0})", "not_({0})"),
    **{name: _function(name) for name in ("exp", "tanh", "sigmoid")},
    "exp_of_negative": Operation("exp({0})", "exp_of_negative({0})", "exp({0})", exact=False),
    **{name: Operation(f"{name}({{0}})", f"math.{name}({{0}})", f"{name}({{0}})", exact=False) for name in (
        "expm1", "log", "log1p", "sin", "cos", "tan", "erf", "atan", "sinh", "cosh",
    )},
    "power": Operation("power({0}, {1})", "({0} ** {1})", "power({0}, {1})", exact=False),
}  # fmt: skip
