"""Tables of numbers, categories, counts and booleans: two that packages ship, one simulated.

Columns have pandas' dtypes that can hold a missing value: floats, "Int64", "boolean", categories.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, log_expit, log_softmax, softmax


class Table(NamedTuple):
    """A table, and the column that a classifier is to tell from its codes."""

    frame: pd.DataFrame
    target: np.ndarray  # (n,) bool; no column of `frame`
    truth: Planted | None = None


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


class Planted:
    """What the simulated table is drawn from, and what it knows of rows with holes.

    Four Gaussian codes go through 24 units of tanh. Of these a number's mean, the logits of levels
    and of booleans and the logarithm of a count's mean are linear maps.
    """

    n_codes, n_units, noise = 4, 24, 0.5
    n_numbers, n_counts, n_booleans = 12, 3, 3
    n_levels = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 3, 5)

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._directions = rng.normal(0, 1.2, (self.n_codes, self.n_units))
        self._offsets = rng.normal(0, 1, self.n_units)
        logits = self.n_booleans + 1  # the last is the target's
        sizes = np.repeat(
            [1.0, 2.5, 0.8, 2.5], [self.n_numbers, sum(self.n_levels), self.n_counts, logits]
        )
        self._maps = rng.standard_normal((self.n_units, len(sizes)))
        # Over rows each map has mean zero and a standard deviation of `sizes`.
        self._mean, self._scale = 0.0, 1.0
        raw = self._outputs(rng.standard_normal((100_000, self.n_codes)))
        self._mean, self._scale = raw.mean(axis=0), sizes / raw.std(axis=0)
        self.scales = np.exp(rng.normal(0, 1, self.n_numbers))
        self.shifts = rng.normal(0, 5, self.n_numbers)

    def _outputs(self, z: np.ndarray) -> np.ndarray:
        return (np.tanh(z @ self._directions + self._offsets) @ self._maps - self._mean) * (
            self._scale
        )

    def _parameters(self, z: np.ndarray) -> tuple[Any, Any, Any, Any]:
        """Means of standardised numbers, log chances of levels, means of counts, logits."""
        ends = np.cumsum([self.n_numbers, *self.n_levels, self.n_counts])
        means, *logits, log_rates, yes = np.split(self._outputs(z), ends, axis=1)
        log_rates = log_rates + 0.7 * np.arange(1, self.n_counts + 1)
        return means, [log_softmax(part, axis=1) for part in logits], np.exp(log_rates), yes

    def draw(self, n_samples: int, rng: np.random.Generator) -> Table:
        means, log_chances, rates, yes = self._parameters(
            rng.standard_normal((n_samples, self.n_codes))
        )
        numbers = means + self.noise * rng.standard_normal(means.shape)
        columns: dict[str, Any] = {
            f"number_{j}": values
            for j, values in enumerate((self.shifts + self.scales * numbers).T)
        }
        for j, logits in enumerate(log_chances):
            # The largest of logits with Gumbel noise is a draw from their softmax.
            levels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
            names = [f"level_{k:02d}" for k in range(logits.shape[1])]
            columns[f"category_{j}"] = pd.Categorical.from_codes(levels, names)
        for j, counts in enumerate(rng.poisson(rates).T):
            columns[f"count_{j}"] = pd.array(counts, dtype="Int64")
        *booleans, target = (yes + rng.logistic(size=yes.shape) > 0).T
        for j, values in enumerate(booleans):
            columns[f"boolean_{j}"] = pd.array(values, dtype="boolean")
        return Table(pd.DataFrame(columns), target, self)

    def expected(self, frame: pd.DataFrame, n_draws: int = 100_000) -> tuple[Any, np.ndarray]:
        """Values of all cells given those that are seen, and the chance that the target is true.

        Codes are drawn from their prior and weighted by what they give to the cells that are seen.
        """
        rng = np.random.default_rng(0)
        means, log_chances, rates, yes = self._parameters(
            rng.standard_normal((n_draws, self.n_codes))
        )
        seen = frame.notna().to_numpy()
        # log p(row | code) is a product: functions of the cells by functions of the code.
        x = np.nan_to_num((frame.iloc[:, : self.n_numbers] - self.shifts) / self.scales)
        of_rows, of_codes = [], []
        of_rows += [x / self.noise**2, seen[:, : self.n_numbers]]
        of_codes += [means, -(means**2) / (2 * self.noise**2)]
        for j, logits in enumerate(log_chances):
            codes = frame[f"category_{j}"].cat.codes.to_numpy()
            of_rows.append(np.eye(logits.shape[1])[codes] * (codes[:, None] >= 0))
            of_codes.append(logits)
        which = [f"count_{j}" for j in range(self.n_counts)]
        of_rows += [frame[which].to_numpy(float, na_value=0.0), frame[which].notna()]
        of_codes += [np.log(rates), -rates]
        which = [f"boolean_{j}" for j in range(self.n_booleans)]
        is_yes = frame[which].to_numpy(float, na_value=0.0)
        of_rows += [is_yes, frame[which].notna() - is_yes]
        of_codes += [log_expit(yes[:, :-1]), log_expit(-yes[:, :-1])]
        rows, codes = (np.hstack(parts).astype(np.float32) for parts in (of_rows, of_codes))
        values = np.hstack([means, *map(np.exp, log_chances), rates, expit(yes)], dtype=np.float32)
        averages = np.vstack(
            [softmax(part @ codes.T, axis=1) @ values for part in np.array_split(rows, 50)]
        )
        ends = np.cumsum([self.n_numbers, *self.n_levels, self.n_counts])
        numbers, *chances, counts, yes = np.split(averages, ends, axis=1)
        columns = [*(self.shifts + self.scales * numbers).T]
        for j, part in enumerate(chances):
            columns.append(frame[f"category_{j}"].cat.categories[part.argmax(axis=1)])
        columns += [*counts.T, *(yes[:, :-1] > 0.5).T]
        return dict(zip(frame, columns, strict=True)), yes[:, -1]


def simulated() -> Table:
    """100,000 rows, 30 columns: 12 numbers, 12 categories of 3 to 12 levels, counts, booleans."""
    return Planted().draw(100_000, np.random.default_rng(1))


TABLES = {"fair": fair, "anes96": anes96, "diamonds": diamonds, "simulated": simulated}


def make_holes(frame: pd.DataFrame, share: float, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """The frame with so large a share of its cells missing at random; where these are."""
    holes = np.random.default_rng(seed).random(frame.shape) < share
    return frame.mask(holes), holes
