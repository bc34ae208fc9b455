"""One processor register full of neighbouring channels, as a value inside a numba kernel.

Where a loop over channels has a long body (many modes, many sums), LLVM's own vectoriser gives up or keeps every
intermediate in memory. A kernel written on lanes states the vector code itself: ``x = load(array, i)`` takes the
numbers ``array[i : i + width(array)]`` (linear index, unchecked), arithmetic is per lane, `store` puts them back.

`fma` is one rounding where the processor has a fused multiply-add, and a product and a sum elsewhere.
"""

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import models, register_model

__all__ = [
    "BYTES", "Lanes", "add", "flush", "fma", "fnma", "gain", "load", "lowest", "mul", "nonzero", "repeat", "store",
    "width", "zero",
]  # fmt: skip


intrinsic: Any = numba_intrinsic  # a caller leaves out the first argument, which a type checker cannot know


def _register_bytes() -> int:
    features = llvmlite.binding.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx") else 16


BYTES = _register_bytes()
"""Size of a vector register of this processor; numba keys its cache by processor as well."""


class Lanes(types.Type):
    """numba's type of BYTES worth of one float type."""

    def __init__(self, scalar: types.Float) -> None:
        self.scalar, self.count = scalar, BYTES * 8 // scalar.bitwidth
        super().__init__(name=f"Lanes({scalar} x {self.count})")


@register_model(Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        element = ir.FloatType() if lanes.scalar.bitwidth == 32 else ir.DoubleType()
        super().__init__(manager, lanes, ir.VectorType(element, lanes.count))  # type: ignore[no-untyped-call]


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    vector = context.get_value_type(Lanes(array_type.dtype))
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _call(builder: Any, name: str, *args: Any) -> Any:
    """Call of LLVM's ``name`` on vectors of one type."""
    vector = args[0].type
    bits = 32 if isinstance(vector.element, ir.FloatType) else 64
    kind = ir.FunctionType(vector, [vector] * len(args))
    declare: Any = cgutils.get_or_insert_function
    function = declare(builder.module, kind, f"llvm.{name}.v{vector.count}f{bits}")
    return builder.call(function, args)


@intrinsic
def width(typing: Any, array: Any) -> Any:
    """Channels in one register, a constant."""
    count = Lanes(array.dtype).count
    return types.intp(array), lambda context, builder, signature, args: context.get_constant(types.intp, count)


@intrinsic
def zero(typing: Any, array: Any) -> Any:
    """Zeros of the array's type."""
    lanes = Lanes(array.dtype)
    return lanes(array), lambda context, builder, signature, args: ir.Constant(context.get_value_type(lanes), None)


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """``array.ravel()[index : index + width]`` of a C-contiguous array, aligned or not."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        out = builder.load(_pointer(context, builder, signature.args[0], *args))
        out.align = array.dtype.bitwidth // 8
        return out

    return Lanes(array.dtype)(array, types.intp), generate


@intrinsic
def repeat(typing: Any, array: Any, index: Any) -> Any:
    """``array.ravel()[index]`` in every lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(array)(context, builder, args[0]).data
        return _splat(builder, builder.load(builder.gep(data, [args[1]])), context.get_value_type(Lanes(array.dtype)))

    return Lanes(array.dtype)(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """``array.ravel()[index : index + width] = value``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        out = builder.store(args[2], _pointer(context, builder, signature.args[0], *args[:2]))
        out.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.none(array, types.intp, value), generate


@intrinsic
def gain(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """``array.ravel()[index : index + width] += value`` with a float64 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.VectorType(ir.DoubleType(), value.count)
        data = context.make_array(array)(context, builder, args[0]).data
        where = builder.bitcast(builder.gep(data, [args[1]]), wide.as_pointer())
        more = args[2] if args[2].type == wide else builder.fpext(args[2], wide)
        old = builder.load(where)
        old.align = 8
        builder.store(builder.fadd(old, more), where).align = 8
        return context.get_dummy_value()

    return types.none(array, types.intp, value), generate


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """``a b + c``."""
    return a(a, b, c), lambda context, builder, signature, args: _call(builder, "fmuladd", *args)


@intrinsic
def fnma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """``c - a b``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(builder, "fmuladd", builder.fneg(args[0]), *args[1:])

    return a(a, b, c), generate


@intrinsic
def mul(typing: Any, a: Any, b: Any) -> Any:
    """``a b``."""
    return a(a, b), lambda context, builder, signature, args: builder.fmul(*args)


@intrinsic
def add(typing: Any, a: Any, b: Any) -> Any:
    """``a + b``."""
    return a(a, b), lambda context, builder, signature, args: builder.fadd(*args)


@intrinsic
def flush(typing: Any, a: Any, floor: Any) -> Any:
    """``a``, and 0 where ``|a| < floor`` (a float)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, limit = args
        small = builder.fcmp_ordered("<", _call(builder, "fabs", value), _splat(builder, limit, value.type))
        return builder.select(small, ir.Constant(value.type, None), value)

    return a(a, a.scalar), generate


@intrinsic
def nonzero(typing: Any, array: Any, index: Any) -> Any:
    """Which of ``array.ravel()[index : index + width]`` are not 0 (NaN is not), as the bits of an integer."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(_pointer(context, builder, signature.args[0], *args))
        value.align = array.dtype.bitwidth // 8
        bits = builder.bitcast(
            builder.fcmp_unordered("!=", value, ir.Constant(value.type, None)), ir.IntType(value.type.count)
        )
        return builder.zext(bits, ir.IntType(64))

    return types.int64(array, types.intp), generate


@intrinsic
def lowest(typing: Any, bits: Any) -> Any:
    """The place of the lowest bit that is set; ``bits`` is not 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


def _splat(builder: Any, scalar: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    return builder.shuffle_vector(one, undefined, mask)
