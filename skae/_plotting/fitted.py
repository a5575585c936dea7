"""The model that a display draws: an estimator, or the one inside a Pipeline or a search."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.validation import check_is_fitted

Array = NDArray[Any]


class Fitted:
    """A fitted model, and the steps of a Pipeline that transform rows before it reads them.

    Parameters
    ----------
    estimator : estimator, Pipeline or search
        A fitted estimator with `transform` and `inverse_transform`; a fitted Pipeline with such a
        step; or a fitted search over either.

    Attributes
    ----------
    model : estimator
        The last skae estimator among the steps; where there is none, the last step with
        `transform` and `inverse_transform`.
    before : Pipeline or None
        The steps before the model.
    """

    def __init__(self, estimator: Any) -> None:
        estimator = best_estimator(estimator)
        if isinstance(estimator, Pipeline):
            check_is_fitted(estimator)
            steps = [step for _, step in estimator.steps if step not in (None, "passthrough")]
            place = _place_of_model(steps)
            self.model = best_estimator(steps[place])
            self.before = make_pipeline(*steps[:place]) if place else None
        else:
            self.model, self.before = estimator, None
        check_is_fitted(self.model)

    @property
    def name(self) -> str:
        """Class of the model."""
        return type(self.model).__name__

    def require(self, *methods: str, display: str) -> None:
        """Raise a TypeError that names the methods which the model lacks."""
        missing = [method for method in methods if not hasattr(self.model, method)]
        if missing:
            raise TypeError(
                f"{display} draws what {' and '.join(methods)} of an estimator return; "
                f"estimator={self.name} has no {' and no '.join(missing)}."
            )

    def read(self, X: Any) -> Any:
        """Rows as the model reads them: after the steps before it."""
        return X if self.before is None else self.before.transform(X)

    def restore(self, rows: Any) -> Any:
        """Rows of the model in the units of the data: back through the steps before it."""
        return rows if self.before is None else self.before.inverse_transform(rows)

    def encode(self, X: Any) -> Array:
        """Codes of rows of the data."""
        return np.asarray(self.model.transform(self.read(X)))

    def decode(self, codes: Array) -> Any:
        """Rows of the data for codes."""
        return self.restore(self.model.inverse_transform(codes))

    def reconstruct(self, X: Any) -> Any:
        """Rows of the data, encoded and decoded."""
        read = self.read(X)
        if hasattr(self.model, "reconstruct"):
            return self.restore(self.model.reconstruct(read))
        return self.restore(self.model.inverse_transform(self.model.transform(read)))


def best_estimator(estimator: Any) -> Any:
    """The estimator that a fitted search chose, or that is frozen; any other estimator itself."""
    if isinstance(estimator, FrozenEstimator):
        return best_estimator(estimator.estimator)
    if hasattr(estimator, "best_estimator_"):
        return best_estimator(estimator.best_estimator_)
    if hasattr(estimator, "refit") and hasattr(estimator, "estimator"):
        check_is_fitted(estimator, "cv_results_")
        raise TypeError(
            f"estimator={type(estimator).__name__} was fitted with refit={estimator.refit!r} and "
            "has no best_estimator_ to draw. Set refit=True, or give a fitted estimator."
        )
    return estimator


def _place_of_model(steps: list[Any]) -> int:
    models = [best_estimator(step) for step in steps]
    ours = [place for place, model in enumerate(models) if hasattr(model, "score_kind")]
    coders = [
        place
        for place, model in enumerate(models)
        if hasattr(model, "transform") and hasattr(model, "inverse_transform")
    ]
    if not ours and not coders:
        names = ", ".join(type(model).__name__ for model in models)
        raise TypeError(
            "estimator is a Pipeline in which no step has both transform and inverse_transform; "
            f"its steps are {names}."
        )
    return (ours or coders)[-1]


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
    sides = all(isinstance(side, int | np.integer) and side > 0 for side in shape)
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
