"""A hint to the processor that rows of an array will be needed soon."""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir  # type: ignore[import-untyped] # it has no types
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_CACHE_LINE_BYTES: Final = 64
_FOR_WRITING, _KEEP, _DATA = 1, 3, 1


@intrinsic
def prefetch(_typing_context: Any, array: Any, first: Any, count: Any) -> Any:  # noqa: ANN401 - numba's own types
    """Starts loading `count` entries of a contiguous array into the cache, from flat index `first` on.

    A hint to the processor: it changes no result, and any index is safe.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        word, pointer = ir.IntType(64), ir.IntType(8).as_pointer()
        struct = context.make_array(signature.args[0])(context, builder, arguments[0])
        start, length = (
            builder.mul(context.cast(builder, value, kind, types.int64), struct.itemsize)
            for value, kind in zip(arguments[1:], signature.args[1:], strict=True)
        )
        start = builder.add(start, builder.ptrtoint(struct.data, word))
        small = ir.IntType(32)
        hint_type = ir.FunctionType(ir.VoidType(), [pointer, small, small, small])
        hint = builder.module.declare_intrinsic("llvm.prefetch", [pointer], hint_type)
        constants = [ir.Constant(small, number) for number in (_FOR_WRITING, _KEEP, _DATA)]
        line_bytes = ir.Constant(word, _CACHE_LINE_BYTES)
        with cgutils.for_range_slice(builder, ir.Constant(word, 0), length, line_bytes) as (offset, _):
            builder.call(hint, [builder.inttoptr(builder.add(start, offset), pointer), *constants])
        return context.get_dummy_value()

    return types.void(array, first, count), codegen
