"""Export of fitted models to ONNX, to serve them without skae, scikit-learn and torch.

`to_onnx` makes a graph of one part of a model. `register_converters` lets skl2onnx convert
Pipelines that contain estimators of skae. Both need packages that are not installed by default:
``pip install "skae[onnx]"``.
"""

from __future__ import annotations

from inspect import signature
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skae._base import BaseAutoencoder
from skae._linear_ae import LinearAE
from skae._onnx import converters, linear, pipelines
from skae._onnx.graph import FLOATS, NAMES, OPSET, chained, described, dtype_of, input_of
from skae._onnx.packages import package
from skae._ppca import PPCA
from skae._utils.pipeline_steps import best_of
from skae._utils.validation import Interval, StrOptions, check_argument, to_plain

if TYPE_CHECKING:
    from onnx import ModelProto
else:
    ModelProto = object  # onnx may not be installed

Part = Literal["encoder", "decoder", "score"]

__all__ = ["register_converters", "to_onnx"]

# Estimators with a converter for skl2onnx.
_CONVERTED = ("AdversarialAE", "Autoencoder", "HelmholtzMachine", "VAE", "VQVAE")


def to_onnx(
    estimator: Any,
    part: Part = "encoder",
    *,
    dtype: Literal["float32", "float64"] | None = None,
    n_importance: int | None = None,
) -> ModelProto:
    """Convert a part of a fitted model to an ONNX graph.

    The graph reads rows or codes in the units of the data, and computes what `transform`,
    `inverse_transform` or `score_samples` compute, up to rounding. The standardisation, the layout
    of images and the units of the result are inside. The number of rows is free. Save the graph by
    `onnx.save(graph, path)`, or get its bytes by `graph.SerializeToString()`.

    Parameters
    ----------
    estimator : estimator
        A fitted LinearAE, PPCA, Autoencoder, VAE, AdversarialAE, VQVAE or HelmholtzMachine; a
        LatentDensityEstimator with one of them as its autoencoder, except for "score"; a
        :class:`~sklearn.pipeline.Pipeline` whose last step is one of them; or a fitted search or a
        :class:`~sklearn.frozen.FrozenEstimator` with one of them.
    part : {"encoder", "decoder", "score"}, default="encoder"
        The part to convert. "encoder" computes `transform`, "decoder" computes
        `inverse_transform`, and "score" computes `score_samples`. Scores of VAE and
        HelmholtzMachine need draws, which are stored in the graph, so that it returns the same
        scores as the estimator.
    dtype : {"float32", "float64"}, default=None
        Type of the input of the graph, which onnxruntime does not convert. The output has the type
        that the estimator returns for such input. None takes the type of the training rows
        (float32 for float32 and smaller types, float64 for others), or for "decoder" the type of
        the codes, which is int64 for VQVAE with codes="indices".
    n_importance : int, default=None
        Number of draws for each row in scores of VAE and HelmholtzMachine. None takes the default
        of `score_samples`, 100.

    Returns
    -------
    graph : onnx.ModelProto
        The graph. Its input is "X", or "Z" for "decoder"; its output is "Z", "X_decoded" or
        "scores". Rows and codes have shape (batch, n_columns), and scores (batch,).

    Raises
    ------
    ValueError
        If `part`, `dtype` or `n_importance` is not allowed, or if the part cannot be computed by a
        graph: for tables with categories, for scores and the decoder of a VAE whose targets are
        numbers, for scores of a LatentDensityEstimator, for your own networks that torch cannot
        export, and for steps before a decoder that cannot be inverted. The message names the reason
        and what to use.
    TypeError
        If the estimator is of another kind, or a search that was fitted with `refit=False`.
    ImportError
        If a package is missing. The message names the pip command.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.

    See Also
    --------
    skae.export.register_converters : Conversion of whole Pipelines by skl2onnx.

    Notes
    -----
    A graph does not check its input. Estimators raise an error for values that the likelihood
    excludes, for infinite values, and for NaN if they do not allow it; a graph returns numbers that
    mean nothing. Missing values (NaN) are allowed where the estimator allows them. The columns have
    the order of the training data.

    For tables with integer or boolean columns, `inverse_transform` rounds to integers and to the
    more probable boolean. The graph of the decoder returns the means, which are real numbers.

    Codes of VQVAE and draws of HelmholtzMachine are decided by comparisons. If two entries of the
    codebook are equally close to a vector up to rounding, graph and estimator may choose different
    ones.

    The graph of scores of VAE and HelmholtzMachine keeps the outputs of all draws of a batch in
    memory, about `4 * n_importance * n_features` bytes for each row. Score large data in batches.

    Examples
    --------
    >>> import onnxruntime
    >>> from sklearn.datasets import load_iris
    >>> from skae import PPCA, to_onnx
    >>> X, _ = load_iris(return_X_y=True)
    >>> graph = to_onnx(PPCA(2).fit(X), "encoder")
    >>> session = onnxruntime.InferenceSession(graph.SerializeToString())
    >>> codes = session.run(None, {"X": X[:3]})[0]
    >>> codes.shape
    (3, 2)
    """
    check_argument("part", part, [StrOptions(set(NAMES))], "to_onnx")
    check_argument("dtype", dtype, [StrOptions(set(FLOATS)), None], "to_onnx")
    allowed = [Interval(Integral, 1, None, closed="left"), None]
    check_argument("n_importance", n_importance, allowed, "to_onnx")
    package("onnx")
    estimator = best_of(estimator)
    graph = _graph(estimator, part, dtype, n_importance, OPSET)
    return described(graph, estimator, part)


def register_converters() -> None:
    """Register the estimators of skae in skl2onnx, for the rest of the process.

    Then `skl2onnx.to_onnx(pipeline, X[:1])` and `skl2onnx.convert_sklearn` convert Pipelines,
    FeatureUnions and ColumnTransformers that contain LinearAE, PPCA, Autoencoder, VAE,
    AdversarialAE, VQVAE or HelmholtzMachine. Such a step computes `transform`. The target opset
    must be at least 18.

    Raises
    ------
    ImportError
        If skl2onnx or another package is missing. The message names the pip command.

    See Also
    --------
    skae.to_onnx : Conversion of parts of models, also of decoders and scores.

    Examples
    --------
    >>> import skl2onnx
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skae import PPCA
    >>> from skae.export import register_converters
    >>> X, _ = load_iris(return_X_y=True)
    >>> register_converters()
    >>> graph = skl2onnx.to_onnx(make_pipeline(StandardScaler(), PPCA(2)).fit(X), X[:1])
    >>> [output.name for output in graph.graph.output]
    ['variable']
    """
    import skae

    package("onnxscript")
    _register([LinearAE, PPCA, *(getattr(skae, name) for name in _CONVERTED)])


def _register(kinds: list[type]) -> None:
    """Register converters for these classes."""
    package("onnx")

    def encoder_of(model: Any, dtype: str, opset: int) -> Any:
        return _graph(model, "encoder", dtype, None, opset)

    converters.register(kinds, encoder_of)


def _graph(model: Any, part: Part, dtype: str | None, n_importance: int | None, opset: int) -> Any:
    """The graph of a part of an estimator; `n_importance` is None for all but some scores."""
    if isinstance(model, Pipeline):
        return _pipeline_graph(model, part, dtype, n_importance, opset)
    if not isinstance(model, BaseAutoencoder) or _is_other(model):
        raise TypeError(
            f"estimator must be a LinearAE, PPCA, Autoencoder, VAE, AdversarialAE, VQVAE or "
            "HelmholtzMachine, or a Pipeline that ends in one of them; got "
            f"{type(model).__name__}. Save other estimators with joblib or skops."
        )
    check_is_fitted(model)
    if hasattr(model, "autoencoder_"):
        return _wrapped_graph(model, part, dtype, n_importance, opset)
    draws = signature(type(model).score_samples).parameters.get("n_importance")
    if n_importance is not None and (part != "score" or draws is None):
        raise ValueError(
            f"n_importance={n_importance} concerns part='score' of VAE and HelmholtzMachine only; "
            f"for part={part!r} of {type(model).__name__} it must be None."
        )
    if isinstance(model, LinearAE | PPCA):
        return _linear_graph(model, part, dtype, opset)
    from skae._onnx.torch_export import network_graph

    if part == "score" and draws is not None and n_importance is None:
        n_importance = int(draws.default)
    return network_graph(model, part, dtype, opset, n_importance)


def _is_other(model: BaseAutoencoder) -> bool:
    """Whether no part of an estimator of skae can be exported, as of CountMixtureAE."""
    known = isinstance(model, LinearAE | PPCA) or hasattr(model, "autoencoder")
    return not known and type(model).__name__ not in _CONVERTED


def _linear_graph(model: Any, part: Part, dtype: str | None, opset: int) -> Any:
    mean = to_plain(model.mean_)
    dtype = mean.dtype.name if dtype is None else dtype
    dtypes = dtype, np.result_type(dtype, mean.dtype).name
    gaussian = model._model() if isinstance(model, PPCA) else None
    if part == "decoder":
        matrix = model.decoder_ if gaussian is None else model.loadings_
        return linear.decoder(to_plain(matrix).T, mean, dtypes, opset)
    if gaussian is not None and not linear.can_miss(gaussian.loadings, gaussian.noise_variance):
        gaussian = None
    if part == "score":
        scales = None
        if isinstance(model, PPCA):
            _, axes, variances, noise, scales = model._gaussian()
        else:
            variances, noise = model._floored_gaussian()
            axes, variances = to_plain(model.axes_), to_plain(variances)
        return linear.score(mean, axes, variances, float(noise), scales, dtypes, opset, gaussian)
    if isinstance(model, PPCA):
        matrix, code = model._encoder()
    else:
        matrix = to_plain(model.encoder_).T
        code = -(mean @ matrix)
    return linear.encoder(matrix, code, dtypes, opset, gaussian)


def _wrapped_graph(
    model: Any, part: Part, dtype: str | None, n_importance: int | None, opset: int
) -> Any:
    """The graph of the autoencoder of a LatentDensityEstimator, which encodes and decodes."""
    name = type(model).__name__
    if part == "score":
        raise ValueError(
            f"part='score' of a {name} cannot be exported: its density of codes may be any "
            "estimator. Export 'encoder', and score the codes by the density, or save the model "
            "with joblib."
        )
    if model.autoencoder_ is None:
        raise ValueError(
            f"This {name} has no autoencoder: its codes are the rows. There is nothing to export."
        )
    return _graph(best_of(model.autoencoder_), part, dtype, n_importance, opset)


def _pipeline_graph(
    pipeline: Pipeline, part: Part, dtype: str | None, n_importance: int | None, opset: int
) -> Any:
    check_is_fitted(pipeline)
    steps = pipelines.steps_of(pipeline)
    model = steps[-1][1]
    if part == "decoder":
        last = _graph(model, part, dtype, n_importance, opset)

        def decoder_of(step: Any, dtype: str) -> Any:
            return _graph(step, "decoder", dtype, None, opset)

        return pipelines.backwards(steps[:-1], last, decoder_of, opset)
    if len(steps) == 1:
        return _graph(model, part, dtype, n_importance, opset)
    last = _graph(model, part, None, n_importance, opset)
    before = Pipeline(steps[:-1])
    parts = before.get_params().values()
    _register(list({type(step) for step in parts if isinstance(step, BaseAutoencoder)}))
    read = dtype or dtype_of(input_of(last)).name
    first = pipelines.converted(before, pipeline.n_features_in_, read, opset)
    return chained([first, last], part, opset)
