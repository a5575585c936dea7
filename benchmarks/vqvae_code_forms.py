"""VQVAE's codes in front of a linear classifier, in the three forms of the parameter `codes`.

    python benchmarks/vqvae_code_forms.py

Digits, 8 positions and 64 entries. A VQVAE and a logistic regression of the standardised codes
are fitted to two thirds of the rows; the table has the accuracy for the others, mean and standard
deviation over five random splits, beside PCA with 8 codes. Measured figures: docs/benchmarks.md.
"""

import warnings

import numpy as np
from _common import describe_machine
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import VQVAE

FORMS = ("indices", "embedding", "onehot")


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    print(describe_machine())
    X, y = load_digits(return_X_y=True)
    found: dict[str, list[float]] = {}
    columns = {}
    for seed in range(5):
        X_train, X_test, y_train, y_test = train_test_split(
            X, y, test_size=1 / 3, random_state=seed, stratify=y
        )
        settings = {"max_iter": 10, "learning_rate_init": 1e-4, "random_state": seed}
        vqvae = VQVAE(8, n_codes=64, prior=None, **settings).fit(X_train)
        encoders = {f'codes="{form}"': (vqvae, form) for form in FORMS}
        for name, (encoder, form) in {**encoders, "PCA(8)": (PCA(8).fit(X_train), "")}.items():
            if form:
                encoder.set_params(codes=form)
            classify = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            classify.fit(encoder.transform(X_train), y_train)
            Z = encoder.transform(X_test)
            found.setdefault(name, []).append(classify.score(Z, y_test))
            columns[name] = Z.shape[1]
    print("| codes | columns | accuracy |\n|---|---|---|")
    for name, scores in found.items():
        print(f"| `{name}` | {columns[name]} | {np.mean(scores):.3f} ± {np.std(scores):.3f} |")


if __name__ == "__main__":
    main()
