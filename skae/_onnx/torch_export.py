"""Graphs of torch modules, by the exporter of torch."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from skae._onnx.graph import NAMES
from skae._onnx.networks import Decoder, Encoder, Score, check_can_export
from skae._onnx.packages import package
from skae._training.contexts import exporting
from skae._training.random_state import preserve_rng_state
from skae._training.threads import threads_for

# Number of rows of the example from which the operations are recorded. The graph accepts any number
# of rows; a number that is no size of a layer is less likely to be mistaken for one.
_EXAMPLE_ROWS = 7
# Loggers of the exporter. They report operators of packages that are not installed, and constants
# that are not computed in advance.
_NOISY = ("torch.onnx", "onnxscript", "onnx_ir")


def network_graph(
    model: Any, part: str, dtype: str | None, opset: int, n_importance: int | None = None
) -> Any:
    """Return the graph of a part of a fitted network, which reads rows or codes of a type.

    None takes the type of the training rows, or that of the codes.
    """
    check_can_export(model, part)
    package("onnxscript")
    with _isolated():
        module = _module_of(model, part, n_importance)
        n_inputs = model._n_features_out if part == "decoder" else model.n_features_in_
        dtype = dtype or _usual_type(model, part)
        example = torch.zeros(_EXAMPLE_ROWS, n_inputs, dtype=getattr(torch, dtype))
        try:
            program = torch.export.export(
                module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
            )
            return _translated(program, part, opset)
        except Exception as error:  # torch raises many kinds of errors
            own = model._architecture.own_networks if hasattr(model, "encoder") else False
            if not own:
                raise
            raise ValueError(
                f"torch cannot export the {part} of this {type(model).__name__}, which contains "
                "your own network. Its forward must not depend on values or on the number of rows, "
                "and must use operations that ONNX has. Otherwise save the model with joblib. "
                f"torch says: {error}"
            ) from error


def _usual_type(model: Any, part: str) -> str:
    if part != "decoder":
        return str(model._architecture.row_dtype)
    return "int64" if getattr(model, "codes", None) == "indices" else "float32"


def _module_of(model: Any, part: str, n_importance: int | None) -> nn.Module:
    match part:
        case "encoder":
            return Encoder(model).eval()
        case "decoder":
            return Decoder(model).eval()
    return Score(model, n_importance).eval()


def _translated(program: Any, part: str, opset: int) -> Any:
    read, written = NAMES[part]
    exported = torch.onnx.export(
        program,
        input_names=[read],
        output_names=[written],
        opset_version=opset,
        dynamo=True,
        verbose=False,
        custom_translation_table={torch.ops.aten.lgamma.default: _log_gamma},
    )
    assert exported is not None
    return exported.model_proto


def _log_gamma(x: Any) -> Any:
    """log Γ(x) for x >= 1, which ONNX lacks: Stirling's series at x + 7, in float64.

    log Γ(x) = log Γ(x + 7) - log(x (x + 1) ... (x + 6)).
    """
    op = package("onnxscript").opset18

    def number(value: float) -> Any:
        return op.Constant(value=package("onnx").numpy_helper.from_array(np.float64(value)))

    wide = op.Cast(x, to=package("onnx").TensorProto.DOUBLE)
    factors = wide
    for shift in range(1, 7):
        factors = op.Mul(factors, op.Add(wide, number(shift)))
    y = op.Add(wide, number(7.0))
    square = op.Mul(y, y)
    series = op.Sub(number(1 / 360), op.Div(number(1 / 1260), square))
    series = op.Div(op.Sub(number(1 / 12), op.Div(series, square)), y)
    stirling = op.Sub(op.Mul(op.Sub(y, number(0.5)), op.Log(y)), y)
    stirling = op.Add(op.Add(stirling, number(0.5 * float(np.log(2 * np.pi)))), series)
    return op.CastLike(op.Sub(stirling, op.Log(factors)), x)


@contextmanager
def _isolated() -> Iterator[None]:
    """Context that records operations and leaves the state of torch as it was.

    torch and onnxscript issue warnings about their own code, and messages about operators of
    packages that are not installed. Users can do nothing about both.
    """
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            preserve_rng_state(),
            threads_for(0),
            torch.inference_mode(False),
            torch.no_grad(),
            exporting(),
        ):
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
