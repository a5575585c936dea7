"""Outliers by `score_samples`: malignant tumours among benign ones.

Models are fitted to 200 benign rows of scikit-learn's breast cancer data, standardised. Printed are
means over three splits: the area under the ROC curve of benign rows that were held out against
malignant rows; the share of the held-out benign rows below the 5% quantile of the training scores;
and the share of malignant rows below the 5% quantile of the held-out scores. The first table has
the areas with 20 malignant rows among the training rows, and after the lowest tenth of the scores
was dropped three times.

    python benchmarks/outliers.py
"""

import warnings

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import PPCA, VAE, Autoencoder, LatentDensityEstimator

N_SPLITS, N_TRAIN, N_CONTAMINATING, RATE = 3, 200, 20, 0.05


def detectors(seed):
    """Unfitted models by name."""
    network = {"max_iter": 100, "random_state": seed}
    density = LatentDensityEstimator(Autoencoder(5, **network), max_iter=30, random_state=seed)
    return {
        "IsolationForest": IsolationForest(random_state=seed),
        "LocalOutlierFactor": LocalOutlierFactor(novelty=True),
        "PPCA(2)": PPCA(2),
        "PPCA(5)": PPCA(5),
        "PPCA(20)": PPCA(20),
        "VAE(5)": VAE(5, **network),
        "VAE(10)": VAE(10, **network),
        "Autoencoder(5)": Autoencoder(5, **network),
        "Autoencoder(15)": Autoencoder(15, **network),
        "Autoencoder(5), density of codes": density,
    }


def area(normal, other):
    """Area under the ROC curve, where low scores tell the others."""
    labels = np.r_[np.zeros(len(normal)), np.ones(len(other))]
    return roc_auc_score(labels, -np.r_[normal, other])


def splits():
    """Benign training rows and held-out rows, malignant rows to add and to find, and a seed."""
    X, y = load_breast_cancer(return_X_y=True)
    for seed in range(N_SPLITS):
        rng = np.random.RandomState(seed)
        benign, malignant = rng.permutation(X[y == 1]), rng.permutation(X[y == 0])
        added, other = malignant[:N_CONTAMINATING], malignant[N_CONTAMINATING:]
        yield benign[:N_TRAIN], benign[N_TRAIN:], added, other, seed


def refitted(model, rows, n_times=3, share=0.1):
    """A model fitted again to the rows that it scores best, several times."""
    fitted = make_pipeline(StandardScaler(), model).fit(rows)
    for _ in range(n_times):
        scores = fitted.score_samples(rows)
        kept = rows[scores > np.quantile(scores, share)]
        fitted = make_pipeline(StandardScaler(), model).fit(kept)
    return fitted


def clean_training():
    """Area, false alarms and finds of all detectors."""
    found = {}
    for train, held_out, _, other, seed in splits():
        for name, model in detectors(seed).items():
            fitted = make_pipeline(StandardScaler(), model).fit(train)
            rows = {"train": train, "held out": held_out, "other": other}
            scores = {key: fitted.score_samples(X) for key, X in rows.items()}
            low, limit = (np.quantile(scores[key], RATE) for key in ("train", "held out"))
            found.setdefault(name, []).append(
                (
                    area(scores["held out"], scores["other"]),
                    (scores["held out"] < low).mean(),
                    (scores["other"] < limit).mean(),
                )
            )
            if hasattr(model, "data_score_samples"):
                scaler, model = fitted[0], fitted[-1]
                bounds = [model.data_score_samples(scaler.transform(X)) for X in rows.values()]
                low, limit = (np.quantile(bound, RATE) for bound in bounds[:2])
                found.setdefault(f"{name}, data_score_samples", []).append(
                    (
                        area(*bounds[1:]),
                        (bounds[1] < low).mean(),
                        (bounds[2] < limit).mean(),
                    )
                )
    return {name: np.mean(values, axis=0) for name, values in found.items()}


def contaminated_training():
    """Areas after clean training, with outliers among the rows, and after these were dropped."""
    found = {}
    for train, held_out, added, other, _ in splits():
        rows = np.vstack([train, added])
        for size in (5, 20):
            name, model = f"PPCA({size})", PPCA(size)
            fits = [
                make_pipeline(StandardScaler(), PPCA(size)).fit(train),
                make_pipeline(StandardScaler(), PPCA(size)).fit(rows),
                refitted(model, rows),
            ]
            areas = [area(fit.score_samples(held_out), fit.score_samples(other)) for fit in fits]
            found.setdefault(name, []).append(areas)
    return {name: np.mean(values, axis=0) for name, values in found.items()}


def main():
    """Print both tables."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    print(f"{'area under the ROC curve':<55}{'clean':>8}{'mixed':>8}{'refit':>8}")
    for name, values in contaminated_training().items():
        print(f"{name:<55}" + "".join(f"{value:>8.3f}" for value in values))
    print(f"\n{'':<55}{'area':>8}{'alarms':>8}{'found':>8}", flush=True)
    for name, values in clean_training().items():
        print(f"{name:<55}{values[0]:>8.3f}{values[1]:>8.2f}{values[2]:>8.2f}")


if __name__ == "__main__":
    main()
