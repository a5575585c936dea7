"""Functions of tensors, recorded once as the plain operations that they consist of.

`torch.func` dispatches each operation level by level in every call, which takes longer than the
arithmetic if tensors are small. `make_fx` of `torch.fx.experimental` also records functions, but
takes ten times as long, because it collects what a compiler needs to know of every operation.
"""

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

# These operations return values that are not tensors. What depends on such a value cannot be
# recorded.
_READING = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)


class Recorded:
    """A function of tensors in nested containers, for arguments of fixed shapes.

    A call repeats the recorded operations for other arguments, without gradients.

    Parameters
    ----------
    function : callable
        Function to record. Its operations must depend only on shapes, not on values.
    arguments : tuple
        Arguments for which the function is recorded.

    Raises
    ------
    ValueError
        If the function reads the value of a tensor.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        recorder = _Recorder(leaves_of(arguments))
        with recorder:
            self._found = function(*arguments)
        self._constants, self._forward = recorder.finish(leaves_of(self._found))
        self._found = _rebuilt(self._found, repeat(None))  # only the containers are needed

    def __call__(self, *arguments: Any) -> Any:
        with torch.no_grad():
            outputs = self._forward(self._constants, *leaves_of(arguments))
        return _rebuilt(self._found, iter(outputs))


def leaves_of(value: Any) -> list[Any]:
    """Return the values in nested dicts, tuples and lists.

    torch's `tree_flatten` takes ten times as long as some of the recorded operations.
    """
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return [value]
    return [leaf for part in value for leaf in leaves_of(part)]


def _rebuilt(like: Any, leaves: Iterator[Any]) -> Any:
    """Return the same containers with other values; lists become tuples."""
    if isinstance(like, dict):
        return {name: _rebuilt(part, leaves) for name, part in like.items()}
    if isinstance(like, (tuple, list)):
        return tuple(_rebuilt(part, leaves) for part in like)
    return next(leaves)


class _Recorder(TorchDispatchMode):
    """Records every operation."""

    def __init__(self, inputs: list[Tensor]) -> None:
        super().__init__()
        self._graph, self._root = fx.Graph(), torch.nn.Module()
        self._tensors: list[Tensor] = []  # kept, so that their identities are not used again
        self._nodes: dict[int, fx.Node] = {}
        for i, tensor in enumerate(inputs):
            self._know(tensor, self._graph.placeholder(f"input_{i}"))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READING:
            raise ValueError("the value of a tensor is read")
        # It makes the constant of `torch.tensor` anew in every call.
        if func is torch.ops.aten.lift_fresh.default:
            func = torch.ops.aten.clone.default
        kwargs = kwargs or {}
        # The arguments are looked up before the operation, because it may write to them.
        nodes, options = tree_map(self._node, (tuple(args), kwargs))
        result = func(*args, **kwargs)
        node = self._graph.call_function(func, nodes, options)
        if isinstance(result, Tensor):
            self._know(result, node)
        elif isinstance(result, (tuple, list)):
            for i, part in enumerate(result):
                if isinstance(part, Tensor):
                    self._know(part, self._graph.call_function(_item, (node, i)))
        return result

    def _know(self, tensor: Tensor, node: fx.Node) -> None:
        self._tensors.append(tensor)
        self._nodes[id(tensor)] = node

    def _node(self, value: Any) -> Any:
        """Return the node that represents a value in the record."""
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self._nodes:
            name = f"constant_{len(self._tensors)}"
            self._root.register_buffer(name, value)
            self._know(value, self._graph.get_attr(name))
        return self._nodes[id(value)]

    def finish(self, outputs: list[Any]) -> tuple[torch.nn.Module, Callable[..., Any]]:
        """Return the constants, and the record as a function of them that has these outputs."""
        self._graph.output([self._node(value) for value in outputs])
        known = {self._nodes[id(tensor)]: tensor for tensor in self._tensors}
        kinds = {node: (tensor.shape, tensor.dtype) for node, tensor in known.items()}
        for node in list(self._graph.nodes):
            _simplify(self._graph, node, kinds)
        if all(tensor.device.type == "cpu" for tensor in self._tensors):
            for node in list(self._graph.nodes):
                _turn(self._graph, node, kinds)
        for node in self._graph.nodes:
            _write_in_place(node)
        self._graph.eliminate_dead_code()
        return self._root, _function_of(self._graph)


def _function_of(graph: fx.Graph) -> Callable[..., Any]:
    """Return a graph as a function of the module with its constants, and of its inputs.

    `fx.GraphModule` would keep the code of every graph until the process ends (torch 2.13).
    """
    code = graph.python_code("self")
    names = dict(code.globals)
    exec(compile(code.src, "<recorded operations>", "exec"), names)
    function: Callable[..., Any] = names["forward"]
    return function


def _item(values: Any, i: int) -> Any:
    return values[i]


_aten = torch.ops.aten
# Operations that can write their result into the memory of the product that they read: activation
# functions and their gradients.
_IN_PLACE = {
    _aten.relu.default: _aten.relu_.default,
    _aten.tanh.default: _aten.tanh_.default,
    _aten.sigmoid.default: _aten.sigmoid_.default,
}
_GRADIENTS_IN_PLACE = {
    _aten.threshold_backward.default: _aten.threshold_backward.grad_input,
    _aten.tanh_backward.default: _aten.tanh_backward.grad_input,
    _aten.sigmoid_backward.default: _aten.sigmoid_backward.grad_input,
}
_PRODUCTS = (_aten.bmm.default, _aten.baddbmm.default)
# Products with at most _FEW columns and at least _MANY rows are computed in transposed form.
_FEW, _MANY = 32, 64
# Operations that have no effect if they keep the shape.
_RESHAPING = (_aten.view.default, _aten._unsafe_view.default, _aten.expand.default)


def _simplify(graph: fx.Graph, node: fx.Node, kinds: dict[fx.Node, Any]) -> None:
    """Remove a view that keeps the shape, and merge a product and a sum into one operation."""
    args: Any = node.args
    if node.target in _RESHAPING and kinds.get(node) == kinds.get(args[0], ()):
        node.replace_all_uses_with(args[0])
        graph.erase_node(node)
    elif node.target is _aten.add.Tensor and not node.kwargs and _adds_to_product(node, kinds):
        bias, product = args
        node.target, node.args = _aten.baddbmm.default, (bias, *product.args)


def _adds_to_product(node: fx.Node, kinds: dict[fx.Node, Any]) -> bool:
    """Return whether this sum is the only use of a product, and has its shape and type."""
    bias, product = node.args
    if not (isinstance(bias, fx.Node) and isinstance(product, fx.Node)):
        return False
    if product.target is not _aten.bmm.default or len(product.users) > 1:
        return False
    if not {bias, product, node} <= kinds.keys() or kinds[product] != kinds[node]:
        return False
    if kinds[bias][1] != kinds[node][1]:  # types
        return False
    between = product
    while between is not node:  # the factors must not be changed between product and sum
        if between.op == "call_function" and _writes(between.target):
            return False
        between = between.next
    return True


def _writes(operation: Any) -> bool:
    schema = getattr(operation, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _turn(graph: fx.Graph, node: fx.Node, kinds: dict[fx.Node, Any]) -> None:
    """Compute products with few columns in transposed form.

    The vector units of a CPU process columns, and are mostly idle if there are few. Such products,
    which occur at the codes, took two to four times as long (torch 2.13 with MKL).
    """
    if node.target not in _PRODUCTS:
        return
    _, n_rows, n_columns = kinds[node][0]
    if n_columns > _FEW or n_rows < _MANY:
        return

    def turned(value: Any) -> fx.Node:
        return graph.call_function(_aten.transpose.int, (value, 1, 2))

    *bias, left, right = node.args
    with graph.inserting_before(node):
        product = graph.call_function(node.target, tuple(map(turned, (*bias, right, left))))
        whole: dict[str, Any] = {"memory_format": torch.contiguous_format}
        found = graph.call_function(_aten.clone.default, (turned(product),), whole)
    node.replace_all_uses_with(found)
    graph.erase_node(node)


def _write_in_place(node: fx.Node) -> None:
    """Write an activation, or its gradient, over a product that no other operation reads."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or len(source.users) > 1 or source.target not in _PRODUCTS:
        return
    if node.target in _IN_PLACE:
        node.target = _IN_PLACE[node.target]
    elif node.target in _GRADIENTS_IN_PLACE:
        node.target = _GRADIENTS_IN_PLACE[node.target]
        node.kwargs = {"grad_input": source}
