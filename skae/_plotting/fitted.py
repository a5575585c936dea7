"""The model that a display draws: an estimator, or the one inside a Pipeline or a search."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skae._plotting.rows import FeatureUnits, drawn_rows, feature_units, n_rows_of, rows_like
from skae._utils.pipeline_steps import best_of, taken_steps
from skae._utils.reconstructions import at_own_totals

Array = NDArray[Any]

# Methods that encode and decode rows.
_OF_CODERS = ("transform", "inverse_transform")


class Fitted:
    """A fitted model, and the steps of a Pipeline that transform rows before it reads them.

    Parameters
    ----------
    estimator : estimator, Pipeline or search
        A fitted estimator with `transform` and `inverse_transform`; a fitted Pipeline with such a
        step; or a fitted search over either.
    *methods : str
        Other methods that the model is known by in a Pipeline without a skae estimator.

    Attributes
    ----------
    model : estimator
        The last skae estimator among the steps, which include those of Pipelines inside of the
        Pipeline; where there is none, the last step with `transform` and `inverse_transform`.
    before : list of (str, estimator)
        The steps before the model, by their names.
    whole : estimator
        The estimator itself, or the one that a search chose.
    """

    def __init__(self, estimator: Any, *methods: str) -> None:
        estimator = best_estimator(estimator)
        self.model, self.before = estimator, []
        if isinstance(estimator, Pipeline):
            check_is_fitted(estimator)
            steps = _steps_of(estimator)
            place = _place_of_model([step for _, step in steps], methods)
            self.model, self.before = steps[place][1], steps[:place]
        check_is_fitted(self.model)
        self.whole = estimator

    @property
    def name(self) -> str:
        """Class of the model."""
        return type(self.model).__name__

    def has(self, method: str) -> bool:
        """Whether the model has such a method."""
        return callable(getattr(self.model, method, None))

    def require(self, *methods: str, display: str) -> None:
        """Raise a TypeError that names the methods which the model lacks."""
        missing = [method for method in methods if not self.has(method)]
        if missing:
            raise TypeError(
                f"{display} needs an estimator with {' and '.join(methods)}; "
                f"estimator={self.name} has no {' and no '.join(missing)}."
            )

    def require_restoring(self, display: str) -> None:
        """Raise a TypeError that names the step before the model that cannot be inverted."""
        for name, step in self.before:
            if not hasattr(step, "inverse_transform"):
                raise TypeError(
                    f"{display} draws rows in the units of the data, but the step {name!r} before "
                    f"{self.name} has no inverse_transform."
                )

    def read(self, X: Any) -> Any:
        """Rows as the model reads them: after the steps before it."""
        for _, step in self.before:
            X = step.transform(X)
        return X

    def restore(self, rows: Any) -> Any:
        """Rows of the model in the units of the data: back through the steps before it."""
        for _, step in reversed(self.before):
            rows = step.inverse_transform(rows)
        return rows

    def encode(self, X: Any) -> Array:
        """Codes of rows of the data."""
        return self.codes_of(self.read(X))

    def codes_of(self, read: Any) -> Array:
        """Codes of rows as the model reads them; dense, one line for each row."""
        codes = self.model.transform(read)
        return codes.toarray() if sparse.issparse(codes) else np.asarray(codes)

    def decode(self, codes: Array, y: Any = None) -> Any:
        """Rows of the data for codes, conditioned on `y` if it is given."""
        return self.restore(self.model.inverse_transform(codes, **self._condition(y)))

    def reconstruct(self, X: Any, y: Any = None) -> Any:
        """Rows of the data, encoded and decoded, conditioned on `y` if it is given."""
        read = self.read(X)
        if self.has("reconstruct"):
            given = self._condition(y) | at_own_totals(self.model)
            return self.restore(self.model.reconstruct(read, **given))
        return self.decode(self.model.transform(read), y)

    def code_names(self) -> list[str]:
        """Names of the codes."""
        return [str(name) for name in self.model.get_feature_names_out()]

    def _condition(self, y: Any) -> dict[str, Any]:
        conditional = hasattr(self.model, "class_prior_") or hasattr(self.model, "target_mean_")
        if y is None and hasattr(self.model, "target_mean_"):
            raise ValueError(
                f"y is None, but {self.name} was fitted with conditional=True and numbers for y: "
                "give y."
            )
        if y is not None and not conditional:
            raise ValueError(
                f"y is given, but {self.name} was not fitted with conditional=True: leave y out."
            )
        return {} if y is None else {"y": y}


def best_estimator(estimator: Any) -> Any:
    """As `best_of`, for the argument `estimator` of a display."""
    if isinstance(estimator, type):
        raise TypeError(
            f"estimator is the class {estimator.__name__}, but must be a fitted instance."
        )
    return best_of(estimator)


def _steps_of(pipeline: Pipeline) -> list[tuple[str, Any]]:
    """The steps that are not passed through, and in the place of a Pipeline its own steps."""
    steps: list[tuple[str, Any]] = []
    for name, step in taken_steps(pipeline):
        step = best_of(step)
        steps += _steps_of(step) if isinstance(step, Pipeline) else [(name, step)]
    return steps


def _place_of_model(models: list[Any], methods: tuple[str, ...]) -> int:
    """The index of the model among the steps of a Pipeline."""
    ours = [place for place, model in enumerate(models) if hasattr(model, "score_kind")]
    coders = [
        place
        for place, model in enumerate(models)
        if all(hasattr(model, method) for method in methods or _OF_CODERS)
    ]
    if not ours and not coders:
        names = ", ".join(type(model).__name__ for model in models)
        raise TypeError(
            f"estimator is a Pipeline in which no step has {' and '.join(methods or _OF_CODERS)}; "
            f"its steps are {names or 'all passed through'}."
        )
    return (ours or coders)[-1]


# Rows that are sampled where what is given does not tell means and standard deviations.
_SAMPLED = 200


def units_of_table(
    fitted: Fitted, X: Any, like: Any, names: list[Any], n_least: int = 10
) -> FeatureUnits | None:
    """Means and standard deviations of the columns of a data frame that are drawn.

    They are those of `X`; where it has fewer than `n_least` rows, those of rows that the model
    samples, if it can; None where neither tells them.

    Parameters
    ----------
    fitted : Fitted
        The model.
    X : data frame
        The rows.
    like : data frame
        Rows with the columns of the data.
    names : list
        Names of the columns that are drawn.
    n_least : int
        Least number of rows.
    """
    if X is not None and n_rows_of(X) >= n_least:
        return feature_units(drawn_rows(X)[0])
    if fitted.has("sample") and not hasattr(fitted.model, "target_mean_"):
        new = fitted.restore(fitted.model.sample(_SAMPLED, random_state=0))
        return feature_units(rows_like(new, like, names))
    return None if X is None else feature_units(drawn_rows(X)[0])


def image_shape_of(fitted: Fitted, given: Any, n_features: int) -> tuple[int, ...] | None:
    """Shape of the image in every row, as (height, width) or (channels, height, width).

    It is the shape that was given, or else the `image_shape` of the model where rows of the data
    have as many values; None where rows hold no images.
    """
    if given is not None:
        return checked_image_shape(given, n_features)
    known = getattr(fitted.model, "image_shape", None)
    if known is None or int(np.prod(known)) != n_features:
        return None
    return checked_image_shape(known, n_features)


def checked_image_shape(given: Any, n_features: int) -> tuple[int, ...]:
    """An image shape as a tuple; a ValueError where rows of `n_features` values have another."""
    shape = tuple(given) if isinstance(given, tuple | list) else (given,)
    sides = all(_is_side(side) for side in shape)
    if not sides or len(shape) not in (2, 3):
        raise ValueError(
            f"image_shape={given!r} must be (height, width) or (channels, height, width)."
        )
    if len(shape) == 3 and shape[0] not in (1, 3):
        raise ValueError(
            f"image_shape={given!r} has {shape[0]} channels; only images of 1 or 3 channels can be "
            "drawn."
        )
    if int(np.prod(shape)) != n_features:
        raise ValueError(
            f"image_shape={given!r} holds {int(np.prod(shape))} values, but a row has "
            f"{n_features} features."
        )
    return shape[1:] if shape[0] == 1 and len(shape) == 3 else shape


def _is_side(side: Any) -> bool:
    whole = isinstance(side, int | np.integer) and not isinstance(side, bool)
    return whole and bool(side > 0)
