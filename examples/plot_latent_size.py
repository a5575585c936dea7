"""
Choose the number of codes
==========================

The log-likelihood of held-out rows, or a lower bound on it, ranks numbers of codes. The scores of
PPCA and of a VAE are both nats per row and can be compared. ``skae.GridSearchCV`` computes the
scores of all sizes of PPCA from one decomposition per fold, and trains the VAEs of all sizes and
folds together. A single VAE whose codes are ordered gives a model of every size; it is worse with
few codes and at least as good with many. The score of an ``Autoencoder`` is the log-likelihood of a
row given its own code. It increases with every further code and cannot choose the size. The task
for which the codes are used can choose it.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import PPCA, VAE, Autoencoder, GridSearchCV, cross_validate
from skae.plotting import LatentSizeDisplay

# %%
# Rows that have a density
# ------------------------
# A density of integers has no upper limit. Each grey level k therefore becomes a number drawn
# uniformly from [k, k + 1). Pixels at the edges that are nearly always empty are left out.

levels, y = load_digits(return_X_y=True)
X = levels + np.random.RandomState(0).uniform(size=levels.shape)
X, X_test, y, _ = train_test_split(X, y, train_size=1000, stratify=y, random_state=0)
varies = X.std(axis=0) > 3
X, X_test = X[:, varies], X_test[:, varies]

sizes = [2, 4, 8, 16, 32]
folds = KFold(3, shuffle=True, random_state=0)
network = {
    "hidden_layer_sizes": 100,
    "learning_rate_init": 2e-3,
    "max_iter": 30,
    "random_state": 0,
}


def scaled(model):
    return Pipeline([("scale", StandardScaler()), ("reduce", model)])


# %%
# Scores that rank sizes
# ----------------------
# There is one search for each model. With ``verbose=1``, a search prints what its fits share.

grid = {"reduce__n_components": sizes}
searches = {
    name: GridSearchCV(scaled(model), grid, cv=folds, verbose=1).fit(X)
    for name, model in {"PPCA": PPCA(), "VAE": VAE(**network)}.items()
}


def fold_scores(search):
    """Scores of every size in each fold, of shape (n_sizes, n_folds)."""
    return np.column_stack([search.cv_results_[f"split{i}_test_score"] for i in range(3)])


curves = {name: fold_scores(search) for name, search in searches.items()}

# %%
# One fit for all sizes
# ---------------------
# Nested dropout trains the first codes of a VAE to be a model of their own. ``truncate`` returns
# the model with the first k codes. This VAE trains for twice as many epochs as those of the search.

longer = network | {"max_iter": 60}
nested = scaled(VAE(max(sizes), latent_growth="nested", **longer))
fits = cross_validate(nested, X, cv=folds, return_estimator=True, return_indices=True)
of_first_codes = []
for pipeline, held_out in zip(fits["estimator"], fits["indices"]["test"], strict=True):
    rows = pipeline["scale"].transform(X[held_out])
    of_first_codes.append([pipeline["reduce"].truncate(k).score(rows) for k in sizes])
curves["VAE, one nested fit"] = np.transpose(of_first_codes)

print("Held-out nats per row of standardised pixels")
print(f"{'codes':<22}" + "".join(f"{k:>8}" for k in sizes))
for name, scores in curves.items():
    print(f"{name:<22}" + "".join(f"{score:>8.2f}" for score in scores.mean(axis=1)))
for name, search in searches.items():
    size, score = search.best_params_["reduce__n_components"], search.score(X_test)
    print(f"{name} with {size} codes, on {len(X_test)} test digits: {score:.2f}")

display = LatentSizeDisplay(
    {name: (sizes, scores) for name, scores in curves.items()},
    chosen=("VAE", searches["VAE"].best_params_["reduce__n_components"]),
    ylabel="held-out log-likelihood (PPCA) or\nlower bound on it (VAE), nats per row",
).plot()

# %%
# A score that cannot choose
# --------------------------
# A search by the reconstruction score of an ``Autoencoder`` warns, and the warning names scorers
# that can be used instead.

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    by_score = GridSearchCV(scaled(Autoencoder(**network)), grid, cv=folds, refit=False)
    by_score.fit(X)
print(caught[0].message)

display = LatentSizeDisplay.from_estimator(by_score)

# %%
# The task chooses the size
# -------------------------
# Here a classifier uses the codes. Its accuracy stops increasing where further codes do not help.

classify = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
with_classifier = Pipeline([*scaled(Autoencoder(**network)).steps, ("classify", classify)])
by_accuracy = GridSearchCV(with_classifier, grid, cv=folds, refit=False).fit(X, y)

print("Autoencoder")
print(f"{'codes':<22}" + "".join(f"{k:>8}" for k in sizes))
score, accuracy = (fold_scores(search).mean(axis=1) for search in (by_score, by_accuracy))
print(f"{'reconstruction score':<22}" + "".join(f"{value:>8.2f}" for value in score))
print(f"{'accuracy':<22}" + "".join(f"{value:>8.3f}" for value in accuracy))

assert (np.diff(score) > 0).all()
assert searches["VAE"].best_params_["reduce__n_components"] < max(sizes)
assert (curves["VAE"].mean(axis=1) > curves["PPCA"].mean(axis=1)).all()

display = LatentSizeDisplay.from_estimator(by_accuracy, X, y)

plt.show()
