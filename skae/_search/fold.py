"""The rows of a fold after the steps of candidates, where every step is fitted once."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from sklearn.base import clone

from skae._linear.fold_moments import FoldMoments
from skae._linear.sizes import fit_sizes, score_sizes
from skae._search.pieces import Piece
from skae._search.same_work import Keys, is_repeatable, sizes_of_one_fit
from skae._search.scikit_learn import safe_split

Sizes = dict[tuple[tuple[str | None, ...], str], list[Any]]


def sizes_of(candidates: Iterable[list[Any]], keys: Keys) -> Sizes:
    """All values of n_components that a step has after the same earlier steps."""
    sizes: Sizes = {}
    for steps in candidates:
        path = keys.path(steps)
        for index, step in enumerate(steps):
            if (key := keys.family(step)) is not None:
                known = sizes.setdefault((path[:index], key), [])
                # The types also matter: 1 is a number of codes, 1.0 a fraction of the variance.
                if (type(step.n_components), step.n_components) not in [
                    (type(k), k) for k in known
                ]:
                    known.append(step.n_components)
    return sizes


class Models:
    """Models of several sizes from one fit."""

    def __init__(
        self,
        step: Any,
        sizes: list[Any],
        X: Any,
        y: Any,
        params: dict[str, Any],
        user: int,
        moments: FoldMoments | None,
    ) -> None:
        self.piece = Piece("sizes", type(step).__name__)
        self._sizes = [(type(size), size) for size in sizes]
        self._scores: dict[str, list[float] | None] = {}
        with self.piece.paid_by(user):
            self._models = fit_sizes(
                clone(step), sizes, X, y, moments=moments and moments.train, **params
            )
        self._moments = {} if moments is None else moments._asdict()

    def __contains__(self, size: Any) -> bool:
        return (type(size), size) in self._sizes

    def of_size(self, size: Any, user: int) -> Any:
        """The fitted model of one size."""
        self.piece.used_by(user)
        return self._models[self._sizes.index((type(size), size))]

    def score(self, size: Any, rows: str, X: Any, user: int) -> float | None:
        """The score of the model of one size; the scores of all sizes are computed together."""
        if rows not in self._scores:
            with self.piece.paid_by(user, "score_time" if rows == "test" else None):
                try:
                    self._scores[rows] = score_sizes(
                        self._models, X, moments=self._moments.get(rows)
                    )
                except Exception:  # scoring each model separately will raise this error
                    self._scores[rows] = None
        scores = self._scores[rows]
        return None if scores is None else scores[self._sizes.index((type(size), size))]


class Node(ABC):
    """Rows after some steps, and the results of the next steps.

    `sizes` is the result of `sizes_of`. `approximate` allows one fit for sizes whose separate fits
    would differ slightly. `keep` keeps the result of one next step when another step follows.
    """

    def __init__(
        self,
        train: Any,
        y: Any,
        sizes: Sizes,
        keys: Keys,
        *,
        approximate: bool,
        keep: bool,
        path: tuple[str | None, ...] = (),
    ) -> None:
        self.train = train
        self.pieces: list[Piece] = []
        self._y = y
        self._sizes, self._keys = sizes, keys
        self._approximate = approximate
        self._keep = keep
        self._path = path
        self._next: dict[str, _Behind | None] = {}
        self._models: dict[str, Models | None] = {}

    @abstractmethod
    def for_scoring(self, rows: str, user: int) -> Any:
        """The rows "train" or "test", transformed by the steps, for scorers."""

    def behind(self, step: Any, user: int) -> "_Behind | None":
        """The fitted step and the rows after it; None if it must be fitted separately."""
        key = self._keys.fingerprint(step)
        if key is None:
            return None
        if key not in self._next:
            if not self._keep:
                self._next.clear()
            try:
                self._next[key] = self._fit(step, key, user)
            except Exception:  # the separate fit will raise this error
                self._next[key] = None
        node = self._next[key]
        if node is not None:
            for piece in node.made_by:
                piece.used_by(user)
        return node

    def _fit(self, step: Any, key: str, user: int) -> "_Behind | None":
        piece = Piece("step", type(step).__name__)
        models = self.models(step, user, {})
        with piece.paid_by(user):
            if models is not None:
                fitted = models.of_size(step.n_components, user)
                train = fitted.transform(self.train)
            elif self._is_repeatable(step):
                fitted = clone(step)
                if hasattr(fitted, "fit_transform"):
                    train = fitted.fit_transform(self.train, self._y)
                else:
                    train = fitted.fit(self.train, self._y).transform(self.train)
            else:
                return None
        self.pieces.append(piece)
        made_by = [piece] if models is None else [piece, models.piece]
        return _Behind(self, fitted, made_by, train, key)

    def _is_repeatable(self, step: Any) -> bool:
        if is_repeatable(step):
            return True
        size = getattr(step, "n_components", None)
        return size is not None and bool(sizes_of_one_fit(step, self.train, [size]))

    def models(self, step: Any, user: int, params: dict[str, Any]) -> Models | None:
        """Models of all sizes of a step, from one fit; None if they need separate fits."""
        key = self._keys.family(step)
        asked = [] if key is None else self._sizes.get((self._path, key), [])
        if key is None or len(asked) < 2:
            return None
        if key not in self._models:
            self._models[key] = None
            sizes = sizes_of_one_fit(step, self.train, asked, self._approximate)
            if len(sizes) > 1:
                try:
                    models = self._fit_sizes(step, sizes, params, user)
                except Exception:  # sizes are then fitted separately, so that only some may fail
                    return None
                self._models[key] = models
                self.pieces.append(models.piece)
        found = self._models[key]
        return found if found is not None and step.n_components in found else None

    def _fit_sizes(self, step: Any, sizes: list[Any], params: dict[str, Any], user: int) -> Models:
        return Models(step, sizes, self.train, self._y, params, user, None)


class Root(Node):
    """The original rows of a fold, which are sliced once.

    `moments` are the moments of the rows, for families of models that are fitted to moments.
    """

    def __init__(
        self,
        candidates: Iterable[list[Any]],
        keys: Keys,
        *,
        approximate: bool = False,
        keep: bool = False,
        moments: dict[str, FoldMoments] | None = None,
    ) -> None:
        sizes = sizes_of(candidates, keys)
        super().__init__(None, None, sizes, keys, approximate=approximate, keep=keep)
        self._sliced: dict[str, tuple[Any, Any]] = {}
        self._moments = moments or {}

    def split(
        self, estimator: Any, X: Any, y: Any, indices: Any, train_indices: Any = None
    ) -> tuple[Any, Any]:
        """Rows and targets, as from `_safe_split` of scikit-learn."""
        rows = "train" if train_indices is None else "test"
        if rows not in self._sliced:
            self._sliced[rows] = safe_split(estimator, X, y, indices, train_indices)
            if rows == "train":
                self.train, self._y = self._sliced[rows]
        return self._sliced[rows]

    def _fit_sizes(self, step: Any, sizes: list[Any], params: dict[str, Any], user: int) -> Models:
        moments = self._moments.get(str(self._keys.family(step)))
        return Models(step, sizes, self.train, self._y, params, user, moments)

    def let_go(self) -> None:
        """Free the rows now; nodes refer to each other, and would wait for garbage collection."""
        self._next.clear()

    def name_of(self, X: Any) -> str | None:
        """The name of these rows, "train" or "test"; None for other rows."""
        return next((name for name, (rows, _) in self._sliced.items() if rows is X), None)

    def for_scoring(self, rows: str, user: int) -> Any:
        return self._sliced[rows][0]


class _Behind(Node):
    """The rows of a fold after a fitted step. Its pieces of work are stored at the root."""

    def __init__(self, before: Node, fitted: Any, made_by: list[Piece], train: Any, key: str):
        super().__init__(
            train,
            before._y,
            before._sizes,
            before._keys,
            approximate=before._approximate,
            keep=before._keep,
            path=(*before._path, key),
        )
        self.fitted, self.made_by = fitted, made_by
        self.pieces = before.pieces
        self._before = before
        self._scored: dict[str, Any] = {}

    def for_scoring(self, rows: str, user: int) -> Any:
        """Rows of the fold, transformed by the fitted steps."""
        if rows not in self._scored:
            X = self._before.for_scoring(rows, user)
            with self.made_by[0].paid_by(user, "score_time" if rows == "test" else None):
                self._scored[rows] = self.fitted.transform(X)
        return self._scored[rows]
