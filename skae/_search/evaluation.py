"""Evaluate a candidate on a fold, by `_fit_and_score` of scikit-learn and with shared work."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils.parallel import delayed

from skae._search.fold import Models, Node, Root
from skae._search.same_work import is_known, is_pipeline_of_steps
from skae._search.scikit_learn import (
    callbacks_of,
    fit_and_score,
    is_own_score,
    reads_predictions_only,
    routing_enabled,
    safe_split,
    score,
    with_names,
)
from skae._utils.fit_names import Part, numbered, parameter, part_of
from skae._utils.pipeline_steps import is_skipped

# A delayed call of `_fit_and_score` from scikit-learn: function, arguments, keywords.
Call = tuple[Any, tuple[Any, ...], dict[str, Any]]


def model_of(call: Call) -> Any:
    """A new unfitted copy of the candidate."""
    _, (estimator, *_), keywords = call
    parameters = keywords.get("parameters")
    model = clone(estimator)
    return model if parameters is None else model.set_params(**clone(parameters, safe=False))


def named(calls: list[Call], within: tuple[Part, ...]) -> list[Call]:
    """The same calls; the progress of their fits names the fold and the parameters."""
    found = []
    for number, (_, arguments, keywords) in enumerate(calls):
        # Cross-validation does not number its folds, and has no parameters to name.
        fold = numbered("fold", *(keywords.get("split_progress") or (number, len(calls))))
        names = [parameter(*item) for item in (keywords.get("parameters") or {}).items()]
        function = partial(_fit_and_score_named, (*within, fold, *names))
        found.append(delayed(function)(*arguments, **keywords))
    return found


def _fit_and_score_named(
    parts: tuple[Part, ...], *arguments: Any, **keywords: Any
) -> dict[str, Any]:
    # The parts are an argument, because a worker process has another context.
    with part_of(*parts, within=()):
        found: dict[str, Any] = fit_and_score(*arguments, **keywords)
    return found


class Evaluation:
    """The evaluation of a candidate, which uses shared work of its fold.

    `call` is one of `named`, `model` is `model_of(call)`, and `user` is the number of the candidate
    in the fold. Estimators that may change their rows get copies.
    """

    location = None  # a Pipeline does not copy steps if its memory has the location None

    def __init__(self, call: Call, model: Any, root: Root, user: int) -> None:
        function, (_, self._X, self._y), self._keywords = call
        self._parts: tuple[Part, ...] = function.function.args[0]
        self._model = model
        self._known = is_known(self._model)
        self._root = root
        self._user = user
        self._node: Node | None = root  # the current rows of the fit; None if they are not shared
        self._shared: Node = root  # the last shared rows
        self._n_shared = 0  # number of steps before the last shared rows
        self._models: Models | None = None  # models of all sizes of the last step, from one fit
        self._has_callbacks = bool(callbacks_of(self._keywords.get("callback_ctx")))

    def run(self) -> dict[str, Any]:
        """Run `_fit_and_score` of scikit-learn; returns its result."""
        run = with_names(fit_and_score, _safe_split=self._split, _score=self._score)
        model = self._model
        vars(model)["fit"] = self._fit
        try:
            ready = model if self._keywords.get("parameters") is None else _Ready(model)
            with part_of(*self._parts, within=()):
                return run(ready, self._X, self._y, **self._keywords)
        finally:
            vars(model).pop("fit", None)

    def _split(
        self, estimator: Any, X: Any, y: Any, indices: Any, train_indices: Any = None
    ) -> tuple[Any, Any]:
        shared = self._root.split(estimator, X, y, indices, train_indices)
        return shared if self._known else safe_split(estimator, X, y, indices, train_indices)

    # ------------------------------------------------------------------------------- fit

    def _fit(self, X: Any, y: Any = None, **params: Any) -> None:
        """Replace the method `fit` of the model for one call."""
        model = self._model
        del vars(model)["fit"]
        if not is_pipeline_of_steps(model):
            self._fit_last(model, X, *(() if y is None else (y,)), **params)
            return
        last = model.steps[-1][1]
        model.memory = self
        if not is_skipped(last):
            vars(last)["fit"] = partial(self._fit_last, last)
        try:
            model.fit(X, y, **params)
        finally:
            model.memory = None
            if not is_skipped(last):
                vars(last).pop("fit", None)

    def _fit_last(self, step: Any, X: Any, *y: Any, **params: Any) -> Any:
        vars(step).pop("fit", None)
        routed = params and step is not self._model  # parameters that are routed by step name
        if self._node is not None and self._known and not routed and not self._is_heard(step):
            self._models = self._node.models(step, self._user, params)
        if self._models is None:
            return step.fit(X, *y, **params)
        vars(step).update(vars(self._models.of_size(step.n_components, self._user)))
        return step

    def cache(self, function: Callable[..., Any], ignore: Any = None) -> Callable[..., Any]:
        """Return the function with which a Pipeline fits a step and transforms the rows."""
        return partial(self._fit_transform, function)

    def _fit_transform(
        self,
        function: Callable[..., Any],
        step: Any,
        X: Any,
        y: Any,
        *,
        params: Any,
        caller: Any,
        callback_ctx: Any,
        **options: Any,
    ) -> tuple[Any, Any]:
        node = None
        if self._node is not None and not any(params.values()) and not self._is_heard(step):
            node = self._node.behind(step, self._user)
        self._node = node
        if node is None:
            task = {"params": params, "caller": caller, "callback_ctx": callback_ctx}
            return function(step, X, y, **task, **options)
        self._shared, self._n_shared = node, self._n_shared + 1
        with callback_ctx.propagate_callback_context(step):
            callback_ctx.call_on_fit_task_begin(estimator=caller, X=X, y=y)
            callback_ctx.call_on_fit_task_end(estimator=caller, X=node.train, y=y)
        return node.train if self._known else copy.deepcopy(node.train), node.fitted

    def _is_heard(self, step: Any) -> bool:
        """Whether callbacks are called in the fit of a step."""
        return self._has_callbacks and hasattr(step, "set_callbacks")

    # ----------------------------------------------------------------------------- score

    def _score(
        self, estimator: Any, X: Any, y: Any, scorer: Any, params: Any, error_score: Any
    ) -> Any:
        rows = self._root.name_of(X)
        whole = partial(score, estimator, X, y, scorer, params, error_score)
        if rows is None or params or routing_enabled() or not reads_predictions_only(scorer):
            return whole()
        if self._n_shared:
            try:
                X = self._shared.for_scoring(rows, self._user)
            except Exception:  # scoring with the whole pipeline will raise this error
                return whole()
            estimator = _behind(estimator, self._n_shared)
        if self._models is not None and is_own_score(scorer):
            last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
            found = self._models.score(last.n_components, rows, X, self._user)
            if found is not None:
                return score(estimator, X, y, lambda *_: found, params, error_score)
        return score(estimator, X, y, scorer, params, error_score)


class _Ready:
    """A candidate whose parameters are set already."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def set_params(self, **params: Any) -> Any:
        return self._model


def _behind(pipeline: Pipeline, n_steps: int) -> Pipeline:
    """The fitted pipeline without its first `n_steps` steps; skipped steps do not count."""
    taken = [index for index, (_, step) in enumerate(pipeline.steps) if not is_skipped(step)]
    return pipeline[taken[n_steps - 1] + 1 :]
