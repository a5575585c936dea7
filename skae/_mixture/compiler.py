"""Arithmetic for loops that Numba compiles. Only modules of such loops import this one."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from skae._utils.compiler import compiled

# exp x = 2^n exp r with |r| <= log(2) / 2. A sum with this number rounds x / log 2 to the integer
# n, which is then in the lowest bits of the sum.
_ROUNDS = 1.5 * 2.0**52
_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10
_LEAST_EXPONENT = -708.0

# The types of Numba do not say how intrinsics are called.
_intrinsic: Any = intrinsic


@_intrinsic
def _bits_of(typing_context: Any, value: Any) -> Any:
    """The bits of a float64, as an int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int64))

    return types.int64(types.float64), generate


@_intrinsic
def _float_of(typing_context: Any, bits: Any) -> Any:
    """The float64 with these bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float64))

    return types.float64(types.int64), generate


@_intrinsic
def larger(typing_context: Any, left: Any, right: Any) -> Any:
    """The larger of two numbers. A conditional expression would become a slow masked store."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        double = context.get_value_type(types.float64)
        kind = ir.FunctionType(double, [double, double])
        maximum = builder.module.declare_intrinsic("llvm.maxnum", [double], kind)
        return builder.call(maximum, arguments, fastmath=("nnan", "nsz"))

    return types.float64(types.float64, types.float64), generate


@compiled("contract")
def exp(x: float) -> float:
    """exp x for x <= 0, with a relative error of about 1e-16; 0 below -708.

    Unlike that of the C library, it has no branches, so that loops are compiled to vector
    instructions.
    """
    shifted = x * _LOG2_E + _ROUNDS
    n = shifted - _ROUNDS
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = 1 / 479001600.0
    p = p * r + 1 / 39916800.0
    p = p * r + 1 / 3628800.0
    p = p * r + 1 / 362880.0
    p = p * r + 1 / 40320.0
    p = p * r + 1 / 5040.0
    p = p * r + 1 / 720.0
    p = p * r + 1 / 120.0
    p = p * r + 1 / 24.0
    p = p * r + 1 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    scaled = _float_of(_bits_of(p) + (_bits_of(shifted) << 52))
    return scaled if x > _LEAST_EXPONENT else 0.0
