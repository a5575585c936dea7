"""ONNX graphs of Pipelines: the steps before a model, and the way back from its rows."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from skae._onnx import linear
from skae._onnx.graph import Graph, chained, dtype_of, output_of
from skae._onnx.packages import package
from skae._utils.pipeline_steps import best_of, taken_steps


def steps_of(pipeline: Pipeline) -> list[tuple[str, Any]]:
    """Return the names and estimators of the steps that do something."""
    steps = [(name, best_of(step)) for name, step in taken_steps(pipeline)]
    if not steps:
        raise TypeError("All steps of the pipeline are None or 'passthrough'.")
    return steps


def converted(pipeline: Pipeline, n_features: int, dtype: str, opset: int) -> Any:
    """Return the graph of a Pipeline for rows of a type, by skl2onnx."""
    skl2onnx, types = package("skl2onnx"), package("skl2onnx.common.data_types")
    kind = types.FloatTensorType if dtype == "float32" else types.DoubleTensorType
    given = [("X", kind([None, n_features]))]
    return skl2onnx.convert_sklearn(pipeline, initial_types=given, target_opset=opset)


def backwards(
    steps: list[tuple[str, Any]], last: Any, decoder_of: Callable[[Any, str], Any], opset: int
) -> Any:
    """Return the graph of a decoder, followed by the inverse of the steps in reverse order.

    `decoder_of` makes the graphs of models of skae, for codes of a type.
    """
    models = [last]
    for name, step in reversed(steps):
        dtype = dtype_of(output_of(models[-1])).name
        models.append(_inverse(name, step, dtype, decoder_of, opset))
    return chained(models, "decoder", opset)


def _inverse(
    name: str, step: Any, dtype: str, decoder_of: Callable[[Any, str], Any], opset: int
) -> Any:
    """Return the graph of `inverse_transform` of a step."""
    match step:
        case StandardScaler() | RobustScaler():
            center = step.mean_ if isinstance(step, StandardScaler) else step.center_
            used = step.with_mean if isinstance(step, StandardScaler) else step.with_centering
            return _affine(step.n_features_in_, step.scale_, center if used else None, dtype, opset)
        case MaxAbsScaler():
            return _affine(step.n_features_in_, step.scale_, None, dtype, opset)
        case MinMaxScaler():
            shift = -step.min_ / step.scale_
            return _affine(step.n_features_in_, 1 / step.scale_, shift, dtype, opset)
        case PCA() if not hasattr(step, "encoder_"):
            factor = np.sqrt(step.explained_variance_)[:, None] if step.whiten else 1.0
            wide = np.result_type(dtype, step.mean_.dtype).name
            return linear.decoder(factor * step.components_, step.mean_, (dtype, wide), opset)
    if type(step).__module__.partition(".")[0] == "skae":
        return decoder_of(step, dtype)
    raise ValueError(
        f"Step {name!r} ({type(step).__name__}) cannot be inverted in a graph. part='decoder' of a "
        "Pipeline allows StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, PCA and "
        "estimators of skae before the last step. Export the last step alone, and invert the "
        "others after it."
    )


def _affine(n_features: int, scale: Any, shift: Any, dtype: str, opset: int) -> Any:
    """Return the graph of x * scale + shift; None means that a factor or a term is not there."""
    graph, value = Graph(), "Z"
    if scale is not None:
        value = graph.apply("Mul", value, graph.constant(scale, dtype))
    if shift is not None:
        value = graph.apply("Add", value, graph.constant(shift, dtype))
    graph.apply("Identity", value, output="X_decoded")
    return graph.model("decoder", n_features, n_features, (dtype, dtype), opset)
