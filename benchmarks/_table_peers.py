"""What `mixed_tables.py` compares: models of a table with `fit`, `impute` and `codes`.

All read a data frame with holes, `impute` fills these and leaves the rest as it is, and `codes`
are those of rows without. What reads numbers only gets categories and booleans one-hot.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Self

import numpy as np
import pandas as pd
from _tables import make_holes
from sklearn.decomposition import PCA

N_CODES = 8
PASSES = 100  # at most, of filling in and fitting again


class OneHot:
    """Standardised numbers beside 0 and 1 for each level; NaN for what was not seen.

    `famd` centres a level by its frequency p and divides by sqrt(p), as factor analysis of mixed
    data does (Pages 2004).
    """

    def __init__(self, frame: pd.DataFrame, famd: bool = False) -> None:
        self.levels = levels_of(frame)
        self.numbers = [name for name in frame if name not in self.levels]
        values = self._values(frame)
        n_numbers = len(self.numbers)
        self.mean, self.scale = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
        self.scale[n_numbers:] = np.sqrt(self.mean[n_numbers:]) if famd else 1.0
        if not famd:
            self.mean[n_numbers:] = 0.0
        self.scale[self.scale == 0] = 1.0  # a declared level that never occurs
        levels = [f"{name}_{level}" for name, some in self.levels.items() for level in some]
        self.names = [*self.numbers, *levels]

    def _values(self, frame: pd.DataFrame) -> np.ndarray:
        parts = [frame[self.numbers].to_numpy(float, na_value=np.nan)]
        for name, levels in self.levels.items():
            codes = pd.Categorical(frame[name], categories=levels).codes
            parts.append(np.where(codes[:, None] >= 0, np.eye(len(levels))[codes], np.nan))
        return np.hstack(parts)

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        return (self._values(frame) - self.mean) / self.scale

    def decode(self, matrix: np.ndarray, frame: pd.DataFrame) -> pd.DataFrame:
        """`frame` with its holes filled by numbers and by the levels of the largest entries."""
        values = matrix * self.scale + self.mean
        guesses: dict[str, Any] = dict(zip(self.numbers, values.T, strict=False))
        start = len(self.numbers)
        for name, levels in self.levels.items():
            block = values[:, start : start + len(levels)]
            guesses[name] = levels[block.argmax(axis=1)]
            start += len(levels)
        return filled(frame, guesses)


def levels_of(frame: pd.DataFrame) -> dict[str, pd.Index]:
    """The levels of each column that is no number."""
    return {
        name: getattr(column.dtype, "categories", pd.Index([False, True]))
        for name, column in frame.items()
        if column.dtype in ("category", "boolean")
    }


def filled(frame: pd.DataFrame, guesses: dict[str, Any]) -> pd.DataFrame:
    """The frame with its holes filled in its own dtypes: integers are rounded."""
    columns = {}
    for name, column in frame.items():
        guess = pd.Series(guesses[name], frame.index)
        if column.dtype == "Int64":
            guess = guess.round()
        columns[name] = column.where(column.notna(), guess.astype(column.dtype))
    return pd.DataFrame(columns)


class MeanAndMode:
    """Each column's mean, or its most frequent level; it has no codes."""

    def fit(self, frame: pd.DataFrame) -> Self:
        self._guesses = {
            name: frame[name].mode()[0] if name in levels_of(frame) else frame[name].mean()
            for name in frame
        }
        return self

    def impute(self, frame: pd.DataFrame) -> pd.DataFrame:
        return filled(frame, self._guesses)


class IteratedPCA:
    """scikit-learn's PCA of the one-hot table: fill in, fit, reconstruct the holes, repeat.

    With FAMD's coding it is the iterative FAMD of Audigier, Husson & Josse (2016) without its
    shrinkage: holes hold fractions of levels in between, which labels cannot.
    """

    def __init__(self, n_components: int = N_CODES, famd: bool = False) -> None:
        self.n_components, self.famd = n_components, famd

    def fit(self, frame: pd.DataFrame) -> Self:
        self._coding = OneHot(frame, self.famd)
        self._pca = PCA(self.n_components, random_state=0)
        X = self._coding.encode(frame)
        self._start = np.nanmean(X, axis=0)
        self._repeat(X, fit=True)
        return self

    def _repeat(self, X: np.ndarray, fit: bool) -> np.ndarray:
        holes = np.isnan(X)
        X = np.where(holes, self._start, X)
        for _ in range(PASSES):
            codes = self._pca.fit_transform(X) if fit else self._pca.transform(X)
            guess = self._pca.inverse_transform(codes)[holes]
            step = np.square(guess - X[holes]).sum()
            X[holes] = guess
            if step <= 1e-6 * np.square(guess).sum():
                break
        return X

    def impute(self, frame: pd.DataFrame) -> pd.DataFrame:
        return self._coding.decode(self._repeat(self._coding.encode(frame), fit=False), frame)

    def codes(self, frame: pd.DataFrame) -> np.ndarray:
        return self._pca.transform(self._coding.encode(frame))


class PrinceFAMD:
    """prince's FAMD, iterated alike; it reads labels, so that holes hold the likeliest level.

    It has no inverse: numbers and levels are read off its coordinates times its loadings.
    """

    passes = 10

    def __init__(self, n_components: int = N_CODES) -> None:
        self.n_components = n_components

    def fit(self, frame: pd.DataFrame) -> Self:
        from prince import FAMD

        names = list(levels_of(frame))
        self._famd = FAMD(n_components=self.n_components, categorical_columns=names, random_state=0)
        self._start = MeanAndMode().fit(frame)
        self._repeat(frame, fit=bool(frame.isna().any(axis=None)))
        return self

    def _repeat(self, frame: pd.DataFrame, fit: bool) -> pd.DataFrame:
        full = self._start.impute(frame)
        if not hasattr(self._famd, "svd_"):
            self._famd.fit(full)
        for _ in range(self.passes):
            # prince takes frequencies of levels from the rows that it is given, and the moments
            # of numbers from those that it was fitted to.
            coding, scaler = OneHot(full, famd=True), self._famd.num_scaler_
            n = len(coding.numbers)
            coding.mean[:n], coding.scale[:n] = scaler.mean_, scaler.scale_
            codes = self._famd.row_coordinates(full).to_numpy()
            matrix = codes @ self._famd.svd_.V + self._famd.scaler_.mean_
            # It has levels in the order of their names, and those alone that occur.
            named = pd.DataFrame(matrix, columns=self._famd.feature_names_in_)
            matrix = named.reindex(columns=coding.names, fill_value=0.0).to_numpy()
            before, full = full, coding.decode(matrix, frame)
            if before.equals(full):
                break
            if fit:
                self._famd.fit(full)
        return full

    def impute(self, frame: pd.DataFrame) -> pd.DataFrame:
        return self._repeat(frame, fit=False)

    def codes(self, frame: pd.DataFrame) -> np.ndarray:
        return self._famd.row_coordinates(frame).to_numpy()


class Chosen:
    """A linear model whose size is the best at filling in a tenth of the cells that are seen.

    With eight components and few columns it would overfit them. Without holes it has eight.
    """

    def __init__(self, model: Callable[[int], Any]) -> None:
        self._model = model

    def fit(self, frame: pd.DataFrame) -> Self:
        size = N_CODES
        if frame.isna().any(axis=None):
            hidden, _ = make_holes(frame, 0.1, seed=100)
            trials = {k: self._model(k).fit(hidden).impute(hidden) for k in (1, 2, 3, 4, 6, 8)}
            size = min(trials, key=lambda k: self._misfit(trials[k], frame, hidden))
        self.n_components = size
        self._fitted = self._model(size).fit(frame)
        self.impute = self._fitted.impute
        self.codes = self._fitted.codes
        return self

    @staticmethod
    def _misfit(guess: pd.DataFrame, frame: pd.DataFrame, hidden: pd.DataFrame) -> float:
        """Share of wrong levels, and squared error by variance: their mean over the columns."""
        losses, levels = [], levels_of(frame)
        for name, column in frame.items():
            which = (hidden[name].isna() & column.notna()).to_numpy()
            if name in levels:
                losses.append((guess[name][which] != column[which]).mean())
            else:
                losses.append(((guess[name] - column)[which] ** 2).mean() / column.var())
        return float(np.mean(losses))


class Regressions:
    """scikit-learn's IterativeImputer of ordinal codes; it has no codes of rows."""

    def fit(self, frame: pd.DataFrame) -> Self:
        from sklearn.experimental import enable_iterative_imputer  # noqa: F401  (a switch)
        from sklearn.impute import IterativeImputer

        self._levels = levels_of(frame)
        self._imputer = IterativeImputer(random_state=0).fit(self._ordinal(frame))
        return self

    def _ordinal(self, frame: pd.DataFrame) -> np.ndarray:
        columns = []
        for name, column in frame.items():
            if name in self._levels:
                codes = pd.Categorical(column, categories=self._levels[name]).codes
                columns.append(np.where(codes >= 0, codes.astype(float), np.nan))
            else:
                columns.append(column.to_numpy(float, na_value=np.nan))
        return np.column_stack(columns)

    def impute(self, frame: pd.DataFrame) -> pd.DataFrame:
        values = self._imputer.transform(self._ordinal(frame))
        guesses: dict[str, Any] = dict(zip(frame, values.T, strict=True))
        for name, levels in self._levels.items():
            guesses[name] = levels[guesses[name].round().clip(0, len(levels) - 1).astype(int)]
        return filled(frame, guesses)


class OneHotNetwork:
    """A network of skae on the one-hot table, under the Gaussian likelihood of all columns."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, frame: pd.DataFrame) -> Self:
        self._coding = OneHot(frame)
        self.estimator.fit(self._coding.encode(frame))
        return self

    def impute(self, frame: pd.DataFrame) -> pd.DataFrame:
        return self._coding.decode(self.estimator.impute(self._coding.encode(frame)), frame)

    def codes(self, frame: pd.DataFrame) -> np.ndarray:
        return self.estimator.transform(self._coding.encode(frame))


class MixedNetwork:
    """A network of skae on the table as it is."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, frame: pd.DataFrame) -> Self:
        self.estimator.fit(frame)
        return self

    def impute(self, frame: pd.DataFrame) -> pd.DataFrame:
        fill = getattr(self.estimator, "impute", self.estimator.reconstruct)
        return filled(frame, dict(fill(frame).items()))

    def codes(self, frame: pd.DataFrame) -> np.ndarray:
        return np.asarray(self.estimator.transform(frame))


def _vae(**options: Any) -> Any:
    from skae import VAE

    return VAE(N_CODES, random_state=0, **options)


def _autoencoder() -> Any:
    from skae import Autoencoder

    return Autoencoder(N_CODES, likelihood="auto", random_state=0)


MODELS: dict[str, Callable[[], Any]] = {
    "mean and mode": MeanAndMode,
    "IterativeImputer": Regressions,
    "one-hot + PCA": lambda: Chosen(IteratedPCA),
    "FAMD (prince)": lambda: Chosen(PrinceFAMD),
    "FAMD, fractions": lambda: Chosen(partial(IteratedPCA, famd=True)),
    "one-hot + Gaussian VAE": lambda: OneHotNetwork(_vae()),
    "Autoencoder, auto": lambda: MixedNetwork(_autoencoder()),
    "VAE, auto": lambda: MixedNetwork(_vae(likelihood="auto")),
}
