"""What a model is conditioned on: labels, or numbers, as columns that a network reads."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from skae._encoder_decoder import EncoderDecoder
from skae._utils.inputs import as_numbers

Array = NDArray[Any]


def check_condition(y: Any, n_rows: int) -> Array:
    """Targets, one per row: labels (n_rows,), or numbers (n_rows, n_targets) as float64.

    Floats are numbers, and so are several columns; integers, strings and booleans are labels.
    """
    try:
        values = np.asarray(as_numbers(y, "y"))
    except ValueError as error:
        raise ValueError(f"y must be a column of labels, or columns of numbers: {error}") from error
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (1, 2) or len(values) != n_rows:
        raise ValueError(
            f"y has shape {np.shape(y)}; expected ({n_rows},) labels or numbers, or "
            f"({n_rows}, n_targets) numbers: one for each row."
        )
    if values.dtype.kind == "f" or (values.ndim == 2 and values.dtype.kind in "biu"):
        numbers = check_array(values, ensure_2d=False, dtype=np.float64, input_name="y")
        return numbers.reshape(n_rows, -1)
    if values.dtype.kind == "O" and values.ndim == 1:
        values = _one_kind(values)
    if values.dtype.kind not in "biuUST" or values.ndim == 2:
        raise ValueError(
            f"y holds values of type {values.dtype}; allowed are integers, strings and booleans as "
            "labels, one for each row, and floats as numbers."
        )
    return values


def _one_kind(values: Array) -> Array:
    """Labels out of an array of objects: all strings, or all integers or booleans."""
    kinds = {type(value) for value in values}
    if all(issubclass(kind, str) for kind in kinds):
        return values.astype(str)
    if all(issubclass(kind, (int, np.integer, np.bool_)) for kind in kinds):
        return values.astype(np.int64)
    raise ValueError(
        f"y mixes values of the types {sorted(kind.__name__ for kind in kinds)}; labels must be "
        "all strings or all integers, none missing."
    )


def one_hot(labels: Array, classes: Array) -> NDArray[np.float32]:
    """(n_rows, n_classes), 1 at the label of each row."""
    strange = ~np.isin(labels, classes)
    if strange.any():
        raise ValueError(
            f"y holds the label {labels[strange].tolist()[0]!r}, which was not seen in fit; "
            f"allowed are {classes.tolist()}."
        )
    return (labels[:, None] == classes).astype(np.float32)


def standardised(numbers: Array, mean: Array, scale: Array) -> NDArray[np.float32]:
    """(n_rows, n_targets), as the network reads them."""
    if numbers.shape[1] != len(mean):
        raise ValueError(
            f"y has {numbers.shape[1]} numbers a row, but the model was fitted with {len(mean)}."
        )
    return ((numbers - mean) / scale).astype(np.float32)


class ConditionalMixin(EncoderDecoder):
    """Targets of models that learn p(x|z,y) with `conditional=True`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, where targets are labels.
    class_prior_ : ndarray of shape (n_classes,)
        Their frequencies in training.
    target_mean_ : ndarray of shape (n_targets,)
        Means of the targets, where these are numbers.
    target_scale_ : ndarray of shape (n_targets,)
        Their standard deviations.
    """

    conditional: bool
    classes_: Array
    class_prior_: Array

    def _check_targets(self, y: Any, n_rows: int) -> Array | None:
        if not self.conditional:
            return None
        if y is None:
            raise ValueError(
                "y is None, but conditional=True learns p(x|z,y): give labels or numbers."
            )
        return check_condition(y, n_rows)

    def _learn_targets(
        self, y: Array | None, sample_weight: Array | None, known: dict[str, Any] | None
    ) -> NDArray[np.float32] | None:
        if y is None:
            return None
        if known is not None:
            self.__dict__.update(known["targets"])
        elif y.ndim == 1:
            self.classes_ = np.unique(y)
        else:
            self.target_mean_ = np.average(y, axis=0, weights=sample_weight)
            spread = np.average((y - self.target_mean_) ** 2, axis=0, weights=sample_weight) ** 0.5
            self.target_scale_ = np.where(spread > 0, spread, 1.0)
        return self._as_columns(y)

    def _learn_shares(self, data: Any, share: float) -> None:
        """How often each label was seen; in a stream a running mean."""
        if data.condition is None or not hasattr(self, "classes_"):
            return
        weight = np.ones(len(data.X)) if data.weight is None else data.weight
        now = weight @ data.condition / weight.sum()
        before = self.class_prior_ if share < 1 else now
        self.class_prior_ = (1 - share) * before + share * now
        with np.errstate(divide="ignore"):  # a label that a later fit no longer sees
            self.net_.module_.set_label_shares(np.log(self.class_prior_))

    def _known(self) -> dict[str, Any]:
        names = ("classes_", "class_prior_", "target_mean_", "target_scale_")
        targets = {name: vars(self)[name] for name in names if name in vars(self)}
        return {**super()._known(), "targets": targets}

    def _as_columns(self, targets: Array) -> NDArray[np.float32]:
        """Checked targets as the decoder reads them."""
        if hasattr(self, "classes_"):
            if targets.ndim == 2:
                raise ValueError(
                    f"y holds numbers, but the model was fitted on labels; allowed are "
                    f"{self.classes_.tolist()}."
                )
            return one_hot(targets, self.classes_)
        if targets.dtype.kind not in "biuf":
            raise ValueError("y holds labels, but the model was fitted on numbers.")
        columns = targets.astype(np.float64).reshape(len(targets), -1)
        return standardised(columns, self.target_mean_, self.target_scale_)

    def _condition_of(self, y: Any, n_rows: int) -> NDArray[np.float32] | None:
        """What is conditioned on: the rows' own targets, or one for all; None for all labels."""
        if not self._architecture.conditional:
            if y is None:
                return None
            raise ValueError("y is given, but the model was fitted with conditional=False.")
        if y is None:
            if hasattr(self, "classes_"):
                return None
            raise ValueError(
                "y is None, but the model was fitted on p(x|z,y) with numbers for y, which cannot "
                "be summed over: give y. Labels may be left out."
            )
        given = np.asarray(as_numbers(y, "y"))
        if given.ndim == 0:
            given = np.full(n_rows, given)
        elif not hasattr(self, "classes_") and given.size == len(self.target_mean_) > 1:
            given = np.broadcast_to(given.reshape(1, -1), (n_rows, given.size))
        return self._as_columns(check_condition(given, n_rows))
