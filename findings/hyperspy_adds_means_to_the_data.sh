#!/usr/bin/env bash
# hyperspy 2.5.0: a decomposition by a scikit-learn estimator that has mean_ adds mean_ to the data
# of the signal, again with every call, and its model takes mean_ for one value per position.
#
# A good engineer's guess: s.decomposition(...) stores its results in s.learning_results and leaves
# s.data alone, as the documentation of `copy` says (what is done to the data is undone), and the
# model of exactly low-rank data equals the data, as that of estimator.inverse_transform does.
# What happens: hyperspy undoes a subtraction of the mean that only its own "SVD" makes. After
# algorithm="sklearn_pca" or PCA(), s.data is data + mean_, which the next call takes for the data,
# so that the excess is 1, 3, 7, ... times the mean; copy=True changes nothing.
# get_decomposition_model() gives each position one value of mean_, which has one per channel: where
# the two numbers are equal the model is wrong, elsewhere a ValueError is raised.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q hyperspy==2.5.0 numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1
"$folder/venv/bin/python" - <<'PY'
import platform
import warnings

import hyperspy
import hyperspy.api as hs
import numpy as np
import sklearn
from sklearn.decomposition import PCA

hs.set_log_level("ERROR")
warnings.simplefilter("ignore")  # copy=True is deprecated
print("Python", platform.python_version(), "hyperspy", hyperspy.__version__)
print("numpy", np.__version__, "scikit-learn", sklearn.__version__)


def spectra(*positions):
    """Spectra of 40 channels that three components and a mean explain exactly."""
    rng = np.random.default_rng(0)
    return 5 + rng.normal(size=(*positions, 3)) @ rng.normal(size=(3, 40))


def decomposed(X, **options):
    s = hs.signals.Signal1D(X.copy())
    excess = []
    for _ in range(3):
        s.decomposition(output_dimension=3, print_info=False, **options)
        excess.append((s.data - X).reshape(-1, 40))
    return excess


def model_of(X):
    s = hs.signals.Signal1D(X.copy())
    s.decomposition(algorithm=PCA(3), output_dimension=3, print_info=False)
    return s.get_decomposition_model().data


X = spectra(6, 10)
mean = X.reshape(-1, 40).mean(0)
for options, times in (
    ({"algorithm": "SVD"}, [0, 0, 0]),
    ({"algorithm": "SVD", "centre": "navigation"}, [0, 0, 0]),
    ({"algorithm": "sklearn_pca"}, [1, 3, 7]),
    ({"algorithm": PCA(3)}, [1, 3, 7]),
    ({"algorithm": PCA(3), "copy": True}, [1, 3, 7]),
):
    excess = decomposed(X, **options)
    print(f"{options}: largest change of s.data after each call:",
          [round(float(abs(e).max()), 2) for e in excess])
    for found, n in zip(excess, times):
        np.testing.assert_allclose(found, np.tile(n * mean, (60, 1)), atol=1e-9)

try:
    model_of(X)
    raise SystemExit("a model of 60 positions and 40 channels was computed")
except ValueError as error:
    print("model of 6 x 10 positions:", error)
    assert "cannot reshape array of size 40" in str(error)

X = spectra(5, 8)
rows = X.reshape(40, 40)
pca = PCA(3).fit(rows)
exact = pca.inverse_transform(pca.transform(rows))
read = exact - pca.mean_ + pca.mean_[:, None]
model = model_of(X).reshape(40, 40)
print("model of 5 x 8 positions: largest error of hyperspy", round(float(abs(model - rows).max()), 2),
      "of scikit-learn", round(float(abs(exact - rows).max()), 2))
np.testing.assert_allclose(exact, rows, atol=1e-9)
np.testing.assert_allclose(model, read, atol=1e-9)
assert abs(model - rows).max() > 1
print("as described")
PY
