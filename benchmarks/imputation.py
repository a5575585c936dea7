"""Imputation of tables of numbers: PPCA beside the imputers of scikit-learn and SoftImpute.

    python benchmarks/imputation.py
    python benchmarks/imputation.py --datasets iris wine --masks 1 --methods KNNImputer "PPCA, ard"
    python benchmarks/imputation.py --times --coverage --json figures.json

The six data sets come with scikit-learn; nothing is downloaded. Linnerud's table has its data and
target columns together. 10, 30 and 60 % of the entries are removed in two ways:

* "entries": every entry is missing with this probability.
* "blocks": the columns are cut into blocks of about sqrt(n_features) adjacent columns, and every
  block of a row is missing with this probability, as a whole. Blocks of the digits are the rows of
  the image.

A row that loses all its values is drawn again, and so is a mask that leaves a column without
values. Therefore fewer entries are missing where a row has few blocks; the table has the shares.

The error is the root mean squared error of the missing entries in units of the standard deviation
of the column, without columns that are constant in the complete data; it is a mean over masks, 5
for each cell and 3 for the digits. All methods have default parameters. SoftImpute (see
_imputers.py) chooses its penalty on a tenth of the observed entries. All methods but PPCA get
columns standardised by their observed values, and their results are scaled back.
"PPCA, ard, standardised" gets these columns too. "PPCA", the model without the prior, is measured
only if `--methods` names it: of the digits it has 63 components, and its fit takes minutes.

`--times` measures the processor time of fit and imputation relative to that of IterativeImputer:
all methods in turn on the first mask of each of the six cells of a data set, and the median of the
six ratios.
`--coverage` measures the share of the missing entries inside the interval from the 5 to the 95 %
quantile of the draws: 100 draws by PPCA, and IterativeImputer(sample_posterior=True) with 20
seeds. 30 % of the entries are missing; there are five masks of the two small tables, iris and
Linnerud's, and one mask of each other table. All that runs uses one thread.

"fancyimpute" is the SoftImpute of that package, which needs scikit-learn < 1.8 and therefore an
environment of its own. `--json FILE` takes the errors that the file has, measures only the others,
and writes all to the file, so that several runs can share one table.

Measured figures: docs/benchmarks.md.
"""

import argparse
import json
import time
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from _common import describe_machine
from _imputers import DRAWS, IMPUTERS, Array
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

DATASETS = ("iris", "wine", "breast_cancer", "diabetes", "digits", "linnerud")
PATTERNS = ("entries", "blocks")
SHARES = (0.1, 0.3, 0.6)
N_MASKS = dict.fromkeys(DATASETS, 5) | {"digits": 3}
N_MASKS_OF_COVERAGE = dict.fromkeys(DATASETS, 1) | {"iris": 5, "linnerud": 5}
DEFAULT = [name for name in IMPUTERS if name not in ("PPCA", "fancyimpute")]
RANKED = ["KNNImputer", "IterativeImputer", "SoftImpute", "PPCA, ard"]
REFERENCE = "IterativeImputer"
CELL = ["data", "pattern", "share"]


def load(name: str) -> Array:
    """The rows of a data set, (n, D), in the units of the data."""
    if name == "linnerud":
        return np.hstack(datasets.load_linnerud(return_X_y=True))
    if name == "diabetes":
        return datasets.load_diabetes(return_X_y=True, scaled=False)[0]
    return getattr(datasets, f"load_{name}")(return_X_y=True)[0]


def blocks_of(n_features: int, pattern: str) -> Array:
    """The block of each column, (D,)."""
    if pattern == "entries":
        return np.arange(n_features)
    n_blocks = round(n_features / round(np.sqrt(n_features)))
    blocks = np.array_split(np.arange(n_features), n_blocks)
    return np.repeat(np.arange(n_blocks), [len(block) for block in blocks])


def missing_entries(shape: tuple[int, int], pattern: str, share: float, seed: int) -> Array:
    """A mask of missing entries that leaves a value in every row and in every column."""
    rng = np.random.default_rng(seed)
    blocks = blocks_of(shape[1], pattern)
    while True:
        lost = np.ones((shape[0], blocks[-1] + 1), dtype=bool)
        while (empty := lost.all(axis=1)).any():
            lost[empty] = rng.random((empty.sum(), lost.shape[1])) < share
        if not lost.all(axis=0).any():
            return lost[:, blocks]


def judged_entries(X: Array, missing: Array) -> Array:
    """Missing entries in columns that are not constant."""
    return missing & (X.std(axis=0) > 0)


def rmse(filled: Array, X: Array, missing: Array) -> float:
    """Root mean squared error of the missing entries, in standard deviations of the columns."""
    rows, columns = np.nonzero(judged_entries(X, missing))
    misfit = (filled - X)[rows, columns] / X.std(axis=0)[columns]
    return float(np.sqrt(np.mean(misfit**2)))


def coverage(draws: Array, X: Array, missing: Array) -> float:
    """Share of the missing entries between the quantiles of 5 and 95 % of their draws.

    Quantile q of n draws is at place q (n + 1) among the sorted draws. The interval of a calibrated
    method then contains 90 % of the entries, whatever n is.
    """
    entries = judged_entries(X, missing)
    low, high = np.quantile(draws[:, entries], [0.05, 0.95], axis=0, method="weibull")
    return float(np.mean((low <= X[entries]) & (X[entries] <= high)))


# --------------------------------------------------------------------------- measurements


def measure_errors(
    names: Iterable[str], methods: list[str], n_masks: int | None, file: Path | None
) -> pd.DataFrame:
    """One row for each data set, pattern, share, mask and method; `file` keeps them."""
    figures = json.loads(file.read_text()) if file is not None and file.exists() else []
    keys = [*CELL, "mask", "method"]
    known, asked = {tuple(figure[key] for key in keys) for figure in figures}, []
    for name in names:
        X = load(name)
        for pattern in PATTERNS:
            for share in SHARES:
                for mask in range(n_masks or N_MASKS[name]):
                    missing = missing_entries(X.shape, pattern, share, mask)
                    for method in methods:
                        asked.append(values := (name, pattern, share, mask, method))
                        if values in known:
                            continue
                        filled = IMPUTERS[method](np.where(missing, np.nan, X))
                        figures.append(
                            dict(zip(keys, values, strict=True))
                            | {"missing": float(missing.mean()), "error": rmse(filled, X, missing)}
                        )
                if file is not None:
                    file.write_text(json.dumps(figures, indent=0))
    wanted = pd.MultiIndex.from_tuples(asked, names=keys)
    return pd.DataFrame(figures).set_index(keys).loc[wanted].reset_index()


def measure_times(name: str, methods: list[str]) -> pd.Series:
    """Median ratio of the seconds of each method to those of IterativeImputer, and its seconds."""
    X, seconds = load(name), []
    for pattern in PATTERNS:
        for share in SHARES:
            holed = np.where(missing_entries(X.shape, pattern, share, 0), np.nan, X)
            seconds.append({})
            for method in [REFERENCE, *methods]:
                start = time.process_time()
                IMPUTERS[method](holed)
                seconds[-1][method] = time.process_time() - start
    frame = pd.DataFrame(seconds)
    ratios = frame.div(frame[REFERENCE], axis=0).median()
    ratios["IterativeImputer, s"] = frame[REFERENCE].median()
    return ratios.drop(REFERENCE)


def measure_coverage(name: str, methods: list[str], n_masks: int | None) -> pd.DataFrame:
    """Coverage by pattern and method, with 30 % missing; a mean over masks."""
    X, figures = load(name), []
    for pattern in PATTERNS:
        for mask in range(n_masks or N_MASKS_OF_COVERAGE[name]):
            missing = missing_entries(X.shape, pattern, 0.3, mask)
            for method in methods:
                draws = DRAWS[method](np.where(missing, np.nan, X))
                figures.append((name, pattern, method, coverage(draws, X, missing)))
    frame = pd.DataFrame(figures, columns=["data", "pattern", "method", "share"])
    return frame.pivot_table(index=["data", "pattern"], columns="method", values="share")


# --------------------------------------------------------------------------------- reports


def markdown(table: pd.DataFrame, form: str, best: bool = False) -> str:
    """A Markdown table, with the smallest figure of each row in bold if `best`."""
    names = [name or "" for name in table.index.names]
    lines = [[*names, *table.columns], ["---"] * (len(names) + len(table.columns))]
    for label, row in table.iterrows():
        smallest = f"{row.min():{form}}" if best else None
        figures = ["" if np.isnan(x) else f"{x:{form}}" for x in row]
        figures = [f"**{figure}**" if figure == smallest else figure for figure in figures]
        label = label if isinstance(label, tuple) else (label,)
        lines.append([*map(str, label), *figures])
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def report_errors(figures: pd.DataFrame, methods: list[str]) -> None:
    order = {name: place for place, name in enumerate((*DATASETS, *PATTERNS))}
    errors = figures.pivot_table(index=CELL, columns="method", values="error")[methods]
    errors = errors.sort_index(key=lambda labels: labels.map(lambda x: order.get(x, x)))
    lost = figures.groupby(CELL)["missing"].mean().reindex(errors.index)
    table = errors.set_axis(
        pd.MultiIndex.from_tuples(
            [
                (data, pattern, f"{share:.0%}", f"{real:.1%}")
                for (data, pattern, share), real in lost.items()
            ],
            names=["data", "missing", "probability", "share"],
        )
    )
    print(markdown(table, ".3f", best=True))
    ranked = errors[[method for method in RANKED if method in errors]].dropna()
    ranks = ranked.rank(axis=1)
    summary = pd.DataFrame(
        {
            "mean rank": ranks.mean(),
            "first": (ranks == 1).sum(),
            "mean error": ranked.mean(),
            "error / IterativeImputer, median": ranked.div(ranked[REFERENCE], axis=0).median()
            if REFERENCE in ranked
            else np.nan,
        }
    )
    print(f"\n{len(ranked)} cells\n" + markdown(summary.rename_axis("method"), ".3g"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=DATASETS)
    parser.add_argument("--masks", type=int, help="for each cell; 5, or 3 for the digits")
    parser.add_argument("--methods", nargs="+", choices=IMPUTERS, default=DEFAULT)
    parser.add_argument("--json", type=Path, help="file that keeps the errors")
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--coverage", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # IterativeImputer's ten passes
    print(describe_machine())
    figures = measure_errors(options.datasets, options.methods, options.masks, options.json)
    report_errors(figures, options.methods)
    if options.times:
        ratios = {name: measure_times(name, options.methods) for name in options.datasets}
        print("\nTime / time of IterativeImputer")
        print(markdown(pd.DataFrame(ratios).T.rename_axis("data"), ".3g"))
    if options.coverage:
        methods = [method for method in DRAWS if method in options.methods]
        found = [measure_coverage(name, methods, options.masks) for name in options.datasets]
        print("\nShare of missing entries inside the interval from 5 to 95 %")
        print(markdown(pd.concat(found)[methods], ".3f"))


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
