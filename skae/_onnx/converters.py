"""Converters of skl2onnx for estimators of skae."""

from collections.abc import Callable, Iterable
from typing import Any

from skae._onnx.graph import FLOATS, dtype_of, input_of, output_of
from skae._onnx.packages import package

# Versions of the operators that graphs of skae can have.
LEAST_OPSET, LATEST_OPSET = 18, 23


def register(kinds: Iterable[type], encoder_of: Callable[[Any, str, int], Any]) -> None:
    """Register a converter for each class; `encoder_of` makes a graph for rows of a type."""
    skl2onnx = package("skl2onnx")

    def convert(scope: Any, operator: Any, container: Any) -> None:
        _embed(encoder_of, scope, operator, container)

    for kind in kinds:
        skl2onnx.update_registered_converter(
            kind, f"Skae{kind.__name__}", _set_output, convert, overwrite=True
        )


def _set_output(operator: Any) -> None:
    """Set the type and the shape of the codes (the shape calculator of skl2onnx)."""
    types, model = package("skl2onnx.common.data_types"), operator.raw_operator
    kinds = {
        "float32": types.FloatTensorType,
        "float64": types.DoubleTensorType,
        "int64": types.Int64TensorType,
    }
    [given] = operator.inputs
    read = "float32" if isinstance(given.type, types.FloatTensorType) else "float64"
    n_codes = len(model.get_feature_names_out())
    operator.outputs[0].type = kinds[_code_type(model, read)]([None, n_codes])


def _code_type(model: Any, read: str) -> str:
    """Return the type of the codes that `transform` returns for rows of a type."""
    kept: list[str] = model.__sklearn_tags__().transformer_tags.preserves_dtype
    if not kept:
        return "int64"
    if kept == ["float32"]:
        return "float32"
    fitted = str(model.mean_.dtype)
    return fitted if fitted in FLOATS and "64" in fitted else read


def _embed(
    encoder_of: Callable[[Any, str, int], Any], scope: Any, operator: Any, container: Any
) -> None:
    """Add the graph of an estimator to the model that skl2onnx builds."""
    onnx, types = package("onnx"), package("skl2onnx.common.data_types")
    [given], [found] = operator.inputs, operator.outputs
    opset = min(container.target_opset_any_domain(""), LATEST_OPSET)
    if opset < LEAST_OPSET:
        raise ValueError(
            f"target_opset={opset} is too old for {type(operator.raw_operator).__name__}, whose "
            f"graph needs at least {LEAST_OPSET}."
        )
    dtype = "float32" if isinstance(given.type, types.FloatTensorType) else "float64"
    model = encoder_of(operator.raw_operator, dtype, opset)
    prefix = scope.get_unique_variable_name("skae") + "_"
    model = onnx.compose.add_prefix(model, prefix)
    first, last = input_of(model), output_of(model)
    cast = onnx.helper.make_node(
        "Cast",
        [given.full_name],
        [first.name],
        to=first.type.tensor_type.elem_type,
    )
    end = onnx.helper.make_node("Identity", [last.name], [found.full_name])
    for node in (cast, *model.graph.node, end):
        node.name = scope.get_unique_operator_name("Skae")
        container.nodes.append(node)
    container.initializers.extend(model.graph.initializer)
    container.node_domain_version_pair_sets.add(("", opset))
    assert dtype_of(first).name == dtype
