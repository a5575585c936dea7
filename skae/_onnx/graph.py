"""Building blocks of ONNX models: a graph that is built operator by operator, and chains."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from skae import __version__
from skae._onnx.packages import package

# Version of the operators, unless the caller needs another one. onnxruntime has it since 1.17.
OPSET = 20
# Names of the input and the output of each part of an estimator.
NAMES = {"encoder": ("X", "Z"), "decoder": ("Z", "X_decoded"), "score": ("X", "scores")}
# Names of types of inputs.
FLOATS = ("float32", "float64")


def onnx_type(dtype: Any) -> int:
    """Return the number by which ONNX denotes a type of NumPy."""
    number: int = package("onnx").helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return number


class Graph:
    """A graph under construction; values are represented by their names.

    Parameters
    ----------
    prefix : str, default=""
        Beginning of all names, for graphs inside of another graph.
    """

    def __init__(self, prefix: str = "") -> None:
        self._helper = package("onnx").helper
        self._prefix = prefix
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Add a constant array."""
        name = f"{self._prefix}constant{len(self.initializers)}"
        array = np.ascontiguousarray(value, dtype=dtype)
        array = array.reshape(np.shape(value))  # arrays without axes keep their shape
        self.initializers.append(package("onnx").numpy_helper.from_array(array, name))
        return name

    def apply(
        self, operator: str, *inputs: str, output: str | None = None, **attributes: Any
    ) -> str:
        """Add an operator with one output, and return the name of the output."""
        name = f"{self._prefix}{operator.lower()}{len(self.nodes)}"
        node = self._helper.make_node(operator, list(inputs), [output or name], name, **attributes)
        self.nodes.append(node)
        return output or name

    def cast(self, value: str, dtype: Any, output: str | None = None) -> str:
        """Convert a value to a type of NumPy."""
        return self.apply("Cast", value, output=output, to=onnx_type(dtype))

    def inner(self, output: str) -> Any:
        """Return the graph as one branch of the operator `If`."""
        info = self._helper.make_empty_tensor_value_info(output)
        return self._helper.make_graph(self.nodes, output, [], [info], self.initializers)

    def model(
        self, part: str, n_inputs: int, n_outputs: int | None, dtypes: Any, opset: int
    ) -> Any:
        """Return the graph as the model of a part, for rows of n_inputs numbers of dtypes[0].

        The output has rows of n_outputs numbers of dtypes[1], or a number for each row with None.
        """
        make, (read, written) = self._helper.make_tensor_value_info, NAMES[part]
        columns = [] if n_outputs is None else [n_outputs]
        graph = self._helper.make_graph(
            self.nodes,
            part,
            [make(read, onnx_type(dtypes[0]), ["batch", n_inputs])],
            [make(written, onnx_type(dtypes[1]), ["batch", *columns])],
            self.initializers,
        )
        versions = [self._helper.make_opsetid("", opset)]
        return self._helper.make_model_gen_version(graph, opset_imports=versions)


def input_of(model: Any) -> Any:
    """Return the only input of a model."""
    [info] = model.graph.input
    return info


def output_of(model: Any) -> Any:
    """Return the only output of a model."""
    [info] = model.graph.output
    return info


def dtype_of(info: Any) -> np.dtype[Any]:
    """Return the type of an input or output."""
    found: np.dtype[Any] = package("onnx").helper.tensor_dtype_to_np_dtype(
        info.type.tensor_type.elem_type
    )
    return found


def chained(models: Sequence[Any], part: str, opset: int) -> Any:
    """Return one model in which each model reads the output of the one before it.

    Types are converted where they differ. The input and the output get the names of the part.
    """
    onnx = package("onnx")
    helper, (read, written) = onnx.helper, NAMES[part]
    nodes, initializers, versions = [], [], {"": opset}
    value = read
    for place, given in enumerate(models):
        model = onnx.compose.add_prefix(given, f"step{place}_")
        first, last = input_of(model), output_of(model)
        kind = first.type.tensor_type.elem_type
        nodes.append(helper.make_node("Cast", [value], [first.name], to=kind))
        nodes += model.graph.node
        initializers += model.graph.initializer
        versions |= {domain.domain: domain.version for domain in model.opset_import}
        value = last.name
    nodes.append(helper.make_node("Identity", [value], [written]))
    inside = helper.make_tensor_value_info
    ends = [
        inside(name, info.type.tensor_type.elem_type, _shape(info))
        for name, info in ((read, input_of(models[0])), (written, output_of(models[-1])))
    ]
    graph = helper.make_graph(nodes, part, ends[:1], ends[1:], initializers)
    imports = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return helper.make_model_gen_version(graph, opset_imports=imports)


def _shape(info: Any) -> list[Any]:
    """Return the shape of an input or output, whose first axis are the rows."""
    axes = info.type.tensor_type.shape.dim
    return ["batch", *(axis.dim_value if axis.dim_value else axis.dim_param for axis in axes[1:])]


def described(model: Any, estimator: Any, part: str) -> Any:
    """Check a model, and note in it by what it was made; all other notes are removed."""
    onnx = package("onnx")
    _forget(model.graph)
    model.producer_name, model.producer_version = "skae", __version__
    model.doc_string = f"{part} of {type(estimator).__name__}"
    notes = {"skae_part": part, "skae_estimator": type(estimator).__name__}
    if part == "score" and hasattr(estimator, "score_kind"):
        notes["skae_score_kind"] = str(estimator.score_kind)
    onnx.helper.set_model_props(model, notes)
    onnx.checker.check_model(model)
    return model


def _forget(graph: Any) -> None:
    """Remove notes of exporters from a graph: they contain paths of the machine."""
    del graph.value_info[:]
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
