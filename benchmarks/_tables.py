"""Tables of numbers, categories, counts and booleans: two that packages ship, one simulated.

Columns have pandas' dtypes that can hold a missing value: floats, "Int64", "boolean", categories.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd


class Table(NamedTuple):
    """A table, and the column that a classifier is to tell from its codes."""

    frame: pd.DataFrame
    target: np.ndarray  # (n,) bool; no column of `frame`


def fair() -> Table:
    """A survey of 6366 wives (statsmodels): 3 numbers, 5 coded answers; who had an affair."""
    import statsmodels.api as sm

    frame = sm.datasets.fair.load_pandas().data
    target = frame.pop("affairs").to_numpy() > 0
    answers = ["rate_marriage", "religious", "educ", "occupation", "occupation_husb"]
    return Table(frame.astype(dict.fromkeys(answers, "category")), target)


def anes96() -> Table:
    """An election survey of 944 voters (statsmodels): 3 numbers, 6 answers; Clinton or Dole."""
    import statsmodels.api as sm

    frame = sm.datasets.anes96.load_pandas().data.drop(columns="popul")  # its logarithm stays
    target = frame.pop("vote").to_numpy() == 1
    answers = ["TVnews", "selfLR", "ClinLR", "DoleLR", "PID", "educ"]
    return Table(frame.astype(dict.fromkeys(answers, "category")), target)


def diamonds() -> Table:
    """53,917 diamonds (plotnine): 7 numbers, colour and clarity; whether the cut is ideal.

    The 23 whose sizes are impossible (zero, or above 20 mm) are left out.
    """
    from plotnine.data import diamonds

    sizes = diamonds[["x", "y", "z"]]
    frame = diamonds[((sizes > 0) & (sizes < 20)).all(axis=1)].reset_index(drop=True)
    target = frame.pop("cut").to_numpy() == "Ideal"
    return Table(frame.astype({"price": "Int64"}), target)


def simulated(n_samples: int = 100_000, n_codes: int = 4, seed: int = 0) -> Table:
    """12 numbers, 12 categories of 3 to 12 levels, 3 counts, 3 booleans; a 31st column is told.

    Four Gaussian codes go through 24 units of tanh; of these the mean of a number, the logits of
    levels and booleans and the logarithm of a count's mean are linear maps.
    """
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((n_samples, n_codes)) @ rng.normal(0, 1.2, (n_codes, 24))
    hidden = np.tanh(hidden + rng.normal(0, 1, 24))

    def head(width: int, size: float) -> np.ndarray:
        """(n, width) linear maps of the units, each of standard deviation `size`."""
        values = hidden @ rng.standard_normal((24, width))
        return size * (values - values.mean(axis=0)) / values.std(axis=0)

    columns: dict[str, object] = {}
    for j in range(12):
        scale, shift = np.exp(rng.normal(0, 1)), rng.normal(0, 5)
        values = head(1, 1.0)[:, 0] + 0.5 * rng.standard_normal(n_samples)
        columns[f"number_{j}"] = shift + scale * values
    for j, n_levels in enumerate((3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 3, 5)):
        # The largest of logits with Gumbel noise is a draw from their softmax.
        levels = (head(n_levels, 2.5) + rng.gumbel(size=(n_samples, n_levels))).argmax(axis=1)
        names = [f"level_{k:02d}" for k in range(n_levels)]
        columns[f"category_{j}"] = pd.Categorical.from_codes(levels, names)
    for j in range(3):
        counts = rng.poisson(np.exp(0.7 * (j + 1) + head(1, 0.8)[:, 0]))
        columns[f"count_{j}"] = pd.array(counts, dtype="Int64")
    for j in range(3):
        values = head(1, 2.5)[:, 0] + rng.logistic(size=n_samples) > 0
        columns[f"boolean_{j}"] = pd.array(values, dtype="boolean")
    target = head(1, 2.5)[:, 0] + rng.logistic(size=n_samples) > 0
    return Table(pd.DataFrame(columns), target)


TABLES = {"fair": fair, "anes96": anes96, "diamonds": diamonds, "simulated": simulated}


def make_holes(frame: pd.DataFrame, share: float, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """The frame with so large a share of its cells missing at random; where these are."""
    holes = np.random.default_rng(seed).random(frame.shape) < share
    return frame.mask(holes), holes
