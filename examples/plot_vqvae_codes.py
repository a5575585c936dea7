"""
Integers that a tree model can use
==================================

The codes of a VQVAE are categories: code 5 is not between 4 and 6. Gradient-boosted trees
take categories as such, and tell digits better by them than by the same codes as numbers. By 16
codes of 4 bits, 8 bytes for a digit, they tell as many right as by the 64 pixels, and at least
as many as by 16 real numbers of PCA or an Autoencoder, at 64 bytes. Small codes are not VQVAE's
alone: PCA's numbers, rounded to 8 bytes, are within two standard errors.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import PercentFormatter
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import KBinsDiscretizer

from skae import VQVAE, Autoencoder

X, y = load_digits(return_X_y=True)
X = X / 16
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=797, stratify=y, random_state=0)
n_positions = 16

# %%
# The search
# ----------
# No prior is needed where nothing is drawn. `categorical_features` tells the trees which
# columns are categories, or none: then codes are numbers on a line. They take at most 255, the
# default of `max_bins`, and so must be `n_codes`. The search tries each size with both; the
# pipeline's `memory` keeps its VQVAE from being fitted twice. The settings of the networks are
# those of `plot_vqvae.py`.

folds = StratifiedKFold(3, shuffle=True, random_state=0)
trees = HistGradientBoostingClassifier(max_iter=50, max_leaf_nodes=8, random_state=0)
networks = {
    "hidden_layer_sizes": (256,),
    "out_activation": "logistic",
    "init": "random",  # for which these settings were chosen
    "solver": "adamw",
    "alpha": 1.0,
    "learning_rate": "cosine",
    "learning_rate_init": 5e-3,
    "max_iter": 30,
    "random_state": 0,
}
vqvae = VQVAE(n_positions, commitment_weight=4.0, prior=None, **networks)


def search(steps, grid):
    """A search over pipelines that end in the trees, and what each of its candidates scores."""
    with TemporaryDirectory() as memory:
        pipeline = Pipeline([*steps, ("trees", trees)], memory=memory)
        found = GridSearchCV(pipeline, grid, cv=folds).fit(X_train, y_train)
        return found, found.cv_results_["mean_test_score"]


readings = {"categories": list(range(n_positions)), "numbers": None}
n_codes = [4, 16, 64]
vq_search, scores = search(
    [("vqvae", vqvae)],
    {"trees__categorical_features": list(readings.values()), "vqvae__n_codes": n_codes},
)
curves = {
    f"VQVAE, as {reading}": (n_positions * np.log2(n_codes) / 8, part)
    for reading, part in zip(readings, scores.reshape(2, -1), strict=True)
}
best = vq_search.best_params_
print(f"VQVAE, share of digits told right, cross-validated on {len(X_train)} digits")
print(f"{'n_codes':<22}" + "".join(f"{k:>8}" for k in n_codes))
for name, (_, part) in curves.items():
    print(f"{name:<22}" + "".join(f"{score:>8.1%}" for score in part))

# %%
# Numbers instead
# ---------------
# The same trees, the same folds: PCA's columns and those of an Autoencoder with the same
# networks, 4 bytes a number; PCA's 16 columns, each rounded to as many levels as the VQVAE has
# codes; and the pixels, which have 17 grey levels, a byte for each.

n_columns = [4, 8, n_positions]
pca_search, scores = search([("pca", PCA())], {"pca__n_components": n_columns})
curves["PCA, float32"] = (4 * np.array(n_columns), scores)
rounding = KBinsDiscretizer(encode="ordinal", strategy="uniform")
rounded_search, scores = search(
    [("pca", PCA(n_positions)), ("round", rounding)], {"round__n_bins": n_codes}
)
curves["PCA(16), rounded"] = (n_positions * np.log2(n_codes) / 8, scores)
ae_search, scores = search([("ae", Autoencoder(n_positions, **networks))], {})
curves["Autoencoder(16), float32"] = (np.array([4 * n_positions]), scores)
raw_search, scores = search([], {})
curves["64 pixels"] = (np.array([X.shape[1]]), scores)

# %%
# Digits held out
# ---------------
# The best of each search, fitted to all training digits; and the VQVAE's codes read the other
# way, of the same number.

numbers = clone(vq_search.best_estimator_).set_params(memory=None, trees__categorical_features=None)
numbers.fit(X_train, y_train)
models = dict(
    zip(
        curves,
        (vq_search, numbers, pca_search, rounded_search, ae_search, raw_search),
        strict=True,
    )
)
right = {name: model.predict(X_test) == y_test for name, model in models.items()}
same = n_codes.index(best["vqvae__n_codes"])
used = {name: same if name.startswith("VQVAE") else np.argmax(curves[name][1]) for name in curves}
size = {name: curves[name][0][used[name]] for name in curves}
print(f"\nThe best of each, on {len(X_test)} digits held out")
print(f"{'':<26}{'bytes':>6}{'cross-validated':>18}{'held out':>12}")
for name, hits in right.items():
    error = hits.std() / np.sqrt(len(hits))
    print(f"{name:<26}{size[name]:>6.0f}{curves[name][1][used[name]]:>18.1%}", end="")
    print(f"{hits.mean():>9.1%} ± {error:.1%}")

print("\nHeld out, codes as categories right more often by, paired")
first = next(iter(right))
for name in list(right)[1:]:
    gain = right[first].astype(float) - right[name]
    print(f"{'than ' + name:<32}{gain.mean():>+7.1%} ± {gain.std() / np.sqrt(len(gain)):.1%}")
gain = right[first].astype(float) - right["VQVAE, as numbers"]
assert gain.mean() > 0
assert right[first].mean() > max(right["PCA, float32"].mean(), right["64 pixels"].mean()) - 0.02

# %%
# The picture
# -----------

figure, axes = plt.subplots(figsize=(9, 5.2), layout="constrained")
looks = ["o-", "o--", "s-", "s--", "D", "*"]
colours = ["tab:blue", "tab:blue", "tab:orange", "tab:orange", "tab:green", "black"]
for (name, (bytes_of_row, part)), look, colour in zip(curves.items(), looks, colours, strict=True):
    fill = "none" if "--" in look else "full"
    axes.plot(bytes_of_row, part, look, color=colour, fillstyle=fill, ms=8, label=name)
for x, k in zip(curves[first][0], n_codes, strict=True):
    axes.text(x, 0.89, f"{k} codes,\nor levels", ha="center", va="center")
ticks = [4, 8, 12, 16, 32, 64]
axes.set(
    xscale="log",
    xlabel="bytes of a digit's code",
    ylabel="digits told right (cross-validated)",
    title="16 categories of a VQVAE, and numbers, to the same trees",
)
axes.set_xticks(ticks, ticks)
axes.minorticks_off()
axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
axes.legend(loc="lower right")

path = Path("figures", "vqvae_codes.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"\npicture: {path.resolve()}")
