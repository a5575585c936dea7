"""ONNX graphs of linear Gaussian models; no torch.

`encoder` and `score` compute the same formulas as `LinearAE` and `PPCA`, in the same types. Rows of
`PPCA` may have missing values. Their posteriors need the inverse of one matrix for each row, which
the sweep operator computes: it inverts a positive definite matrix in as many steps as it has rows,
and the pivots multiply to its determinant.
"""

from math import log, pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._linear.linear_gaussian import expected_offset, expected_precision
from skae._linear.packed import unpack
from skae._onnx.graph import NAMES, Graph
from skae._utils.warning import warn

Array = NDArray[Any]

# Largest squared length of the loadings of a feature, relative to its noise variance, with which
# the k x k matrices of rows with fewer observed values than codes can be inverted accurately.
_MOST_SIGNAL = 1e8


def encoder(
    matrix: Array, code: Array, dtypes: tuple[Any, Any], opset: int, loadings: Any = None
) -> Any:
    """Return the graph of x @ matrix + code; `loadings` are given if values may be missing."""
    graph, (read, written) = Graph(), NAMES["encoder"]
    rows = graph.cast(read, dtypes[1])

    def complete(inner: Graph, output: str | None) -> str:
        product = inner.apply("MatMul", rows, inner.constant(matrix, dtypes[1]))
        return inner.apply("Add", product, inner.constant(code, dtypes[1]), output=output)

    def incomplete(inner: Graph, output: str) -> str:
        return inner.cast(_posterior(inner, rows, loadings)[0], dtypes[1], output)

    _by_gaps(graph, rows, written, complete, None if loadings is None else incomplete)
    n_features, n_codes = matrix.shape
    return graph.model("encoder", n_features, n_codes, dtypes, opset)


def decoder(matrix: Array, mean: Array, dtypes: tuple[Any, Any], opset: int) -> Any:
    """Return the graph of z @ matrix + mean."""
    graph, (read, written) = Graph(), NAMES["decoder"]
    codes = graph.cast(read, dtypes[1])
    product = graph.apply("MatMul", codes, graph.constant(matrix, dtypes[1]))
    graph.apply("Add", product, graph.constant(mean, dtypes[1]), output=written)
    n_codes, n_features = matrix.shape
    return graph.model("decoder", n_codes, n_features, dtypes, opset)


def score(
    mean: Array,
    axes: Array,
    variances: Array,
    noise: float,
    scales: Array | None,
    dtypes: tuple[Any, Any],
    opset: int,
    loadings: Any = None,
) -> Any:
    """Return the graph of `log_density`; `loadings` are given if values may be missing."""
    graph, (read, written) = Graph(), NAMES["score"]
    n_axes, n_features = axes.shape
    rows = graph.cast(read, dtypes[1])
    log_det = float(np.log(variances).sum())
    if n_axes < n_features:
        log_det += (n_features - n_axes) * log(noise)
    if scales is not None:
        log_det += 2 * float(np.log(scales).sum())

    def complete(inner: Graph, output: str) -> str:
        centred = inner.apply("Sub", rows, inner.constant(mean, dtypes[1]))
        if scales is not None:
            centred = inner.apply("Div", centred, inner.constant(scales, dtypes[1]))
        z = inner.apply("MatMul", centred, inner.constant(axes.T, dtypes[1]))
        scaled = inner.apply("Div", z, inner.constant(variances, dtypes[1]))
        distance = _sum(inner, inner.apply("Mul", z, scaled))
        if n_axes < n_features:
            explained = inner.apply("MatMul", z, inner.constant(axes, dtypes[1]))
            residual = inner.apply("Sub", centred, explained)
            squares = _sum(inner, inner.apply("Mul", residual, residual))
            squares = inner.apply("Div", squares, inner.constant(noise, dtypes[1]))
            distance = inner.apply("Add", distance, squares)
        total = inner.constant(log_det + n_features * log(2 * pi), dtypes[1])
        distance = inner.apply("Add", distance, total)
        return inner.apply("Mul", distance, inner.constant(-0.5, dtypes[1]), output=output)

    def incomplete(inner: Graph, output: str) -> str:
        return inner.cast(_log_likelihood(inner, rows, loadings), dtypes[1], output)

    _by_gaps(graph, rows, written, complete, None if loadings is None else incomplete)
    return graph.model("score", n_features, None, dtypes, opset)


def can_miss(loadings: Array, noise: Array) -> bool:
    """Return whether rows with missing values can be read; warn if they cannot."""
    if float(np.max(np.sum(loadings**2, axis=1) / noise)) <= _MOST_SIGNAL:
        return True
    warn(
        "The noise variance of this PPCA is so small that the graph cannot encode and score rows "
        "with missing values: for rows with NaN it returns NaN. Use fewer components.",
        UserWarning,
    )
    return False


def _by_gaps(graph: Graph, rows: str, output: str, complete: Any, incomplete: Any) -> None:
    """Compute one of two branches: rows without missing values, or some with missing values."""
    if incomplete is None:
        complete(graph, output)
        return
    flags = graph.cast(graph.apply("IsNaN", rows), np.float32)
    largest = graph.apply("ReduceMax", flags, keepdims=0)
    any_missing = graph.apply("Greater", largest, graph.constant(0.0, np.float32))
    branches = {}
    for branch, build in (("then_branch", incomplete), ("else_branch", complete)):
        inner = Graph(f"{branch}_")
        branches[branch] = inner.inner(build(inner, f"{branch}_output"))
    graph.apply("If", any_missing, output=output, **branches)


def _sum(graph: Graph, values: str) -> str:
    return graph.apply("ReduceSum", values, graph.constant([-1], np.int64), keepdims=0)


def _posterior(graph: Graph, rows: str, model: Any) -> tuple[str, str, str, str]:
    """Return E[z|x_o], log |M|, the mask and the residuals x_o - mu_o of rows, in float64.

    M = I + W_o' Psi_o^-1 W_o. As all matrices are positive definite, no pivoting is needed.
    """
    wide: Any = np.float64
    W, mean, psi, _ = model
    n_features, n_latents = W.shape
    missing = graph.apply("IsNaN", rows)
    zero = graph.constant(0.0, wide)
    centred = graph.apply("Sub", graph.cast(rows, wide), graph.constant(mean))
    residual = graph.apply("Where", missing, zero, centred)
    seen = graph.cast(graph.apply("Not", missing), wide)
    products = unpack(np.ascontiguousarray(expected_precision(model).T)).reshape(n_features, -1)
    matrix = graph.apply("MatMul", seen, graph.constant(products))
    matrix = graph.apply("Add", matrix, graph.constant(np.eye(n_latents).ravel()))
    shape = graph.constant([-1, n_latents, n_latents], np.int64)
    matrix, log_det = graph.apply("Reshape", matrix, shape), graph.constant(0.0, wide)
    for pivot in range(n_latents):
        matrix, value = _swept(graph, matrix, pivot, n_latents)
        log_det = graph.apply("Add", log_det, graph.apply("Log", value))
    b = graph.apply("MatMul", residual, graph.constant(W / psi[:, None]))
    if model.uncertainty is not None:
        offset = expected_offset(model, np.zeros(n_features))
        b = graph.apply("Sub", b, graph.apply("MatMul", seen, graph.constant(offset)))
    column = graph.apply("Unsqueeze", b, graph.constant([2], np.int64))
    z = graph.apply("MatMul", matrix, column)  # the swept matrix is minus the inverse
    z = graph.apply("Neg", graph.apply("Squeeze", z, graph.constant([2], np.int64)))
    return z, log_det, seen, residual


def _swept(graph: Graph, matrix: str, pivot: int, size: int) -> tuple[str, str]:
    """Sweep symmetric matrices A (n, k, k) on one index; return them and the pivots (n,).

    With the pivot d and the vector v, which is the row of the pivot with -1 in place of d, the
    result is A - v v' / d, where A is 0 in the row and the column of the pivot.
    """
    place = graph.constant([pivot], np.int64)
    row = graph.apply("Gather", matrix, place, axis=1)  # (n, 1, k)
    value = graph.apply("Gather", row, place, axis=2)  # (n, 1, 1)
    unit = np.eye(size)[None, [pivot]]
    v = graph.apply("Mul", row, graph.constant(1 - unit))
    v = graph.apply("Sub", v, graph.constant(unit))
    outer = graph.apply("Transpose", v, perm=[0, 2, 1])
    outer = graph.apply("Mul", outer, graph.apply("Div", v, value))
    others = graph.constant((1 - unit) * (1 - unit).transpose(0, 2, 1))
    swept = graph.apply("Sub", graph.apply("Mul", matrix, others), outer)
    return swept, graph.apply("Squeeze", value, graph.constant([1, 2], np.int64))


def _log_likelihood(graph: Graph, rows: str, model: Any) -> str:
    """Return log p(x_o) of rows, as `skae._linear.linear_gaussian.log_likelihood`."""
    wide: Any = np.float64
    model = model._replace(uncertainty=None)
    W, _, psi, _ = model
    z, log_det, seen, residual = _posterior(graph, rows, model)
    explained = graph.apply("MatMul", z, graph.constant(W.T, wide))
    left = graph.apply("Sub", residual, graph.apply("Mul", seen, explained))
    squares = graph.apply("Div", graph.apply("Mul", left, left), graph.constant(psi, wide))
    distance = graph.apply("Add", _sum(graph, squares), _sum(graph, graph.apply("Mul", z, z)))
    constants = graph.constant(np.log(psi) + log(2 * pi), wide)
    per_value = _sum(graph, graph.apply("Mul", seen, constants))
    total = graph.apply("Add", graph.apply("Add", distance, log_det), per_value)
    return graph.apply("Mul", total, graph.constant(-0.5, wide))
