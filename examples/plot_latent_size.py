"""
How many codes
==============

The log-likelihood of held-out rows, and a lower bound on it, rank latent sizes: those of PPCA and
VAE are in the same nats per row. `skae.GridSearchCV` reads all sizes of PPCA off one
decomposition per fold, and trains the VAEs of all sizes and folds as one. One VAE whose codes are
ordered serves every size, worse with few codes and no worse with many. The score of an
Autoencoder, that of a row given its own code, likes every further code and must not choose;
what the codes are for may.
"""

import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import PPCA, VAE, Autoencoder, GridSearchCV, cross_validate

# %%
# Rows that have a density
# ------------------------
# A density has no limit at 17 grey levels, so that level k becomes a number drawn from [k, k + 1).
# Pixels at the rim, which are nearly always empty, are left out.

levels, y = load_digits(return_X_y=True)
X = levels + np.random.RandomState(0).uniform(size=levels.shape)
X, X_test, y, _ = train_test_split(X, y, train_size=1000, stratify=y, random_state=0)
inked = X.std(axis=0) > 3
X, X_test = X[:, inked], X_test[:, inked]

sizes = [1, 2, 4, 8, 12, 16, 24, 32]
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
# One search for each model. `verbose=1` tells what was shared.

grid = {"reduce__n_components": sizes}
searches = {
    name: GridSearchCV(scaled(model), grid, cv=folds, verbose=1).fit(X)
    for name, model in {"PPCA": PPCA(), "VAE": VAE(**network)}.items()
}

# %%
# One fit, all sizes
# ------------------
# With nested dropout the first codes of a VAE are a model of their own, which `truncate` returns.
# Two thirds of the rows train it, as in the searches, for twice as many epochs.

longer = network | {"max_iter": 60}
nested = scaled(VAE(max(sizes), latent_growth="nested", **longer))
fits = cross_validate(nested, X, cv=folds, return_estimator=True, return_indices=True)
of_first_codes = []
for pipeline, held_out in zip(fits["estimator"], fits["indices"]["test"], strict=True):
    rows = pipeline["scale"].transform(X[held_out])
    of_first_codes.append([pipeline["reduce"].truncate(k).score(rows) for k in sizes])

curves = {name: search.cv_results_["mean_test_score"] for name, search in searches.items()}
curves["VAE, one nested fit"] = np.mean(of_first_codes, axis=0)

print("\nHeld-out nats per row of standardised pixels")
print(f"{'codes':<22}" + "".join(f"{k:>8}" for k in sizes))
for name, curve in curves.items():
    print(f"{name:<22}" + "".join(f"{score:>8.2f}" for score in curve))
for name, search in searches.items():
    size, score = search.best_params_["reduce__n_components"], search.score(X_test)
    print(f"{name} with {size} codes, on {len(X_test)} other digits: {score:.2f}")

# %%
# A score that does not
# ---------------------
# A search by the reconstruction score warns, and names scorers to give it instead. Here the codes
# are for a classifier: its accuracy levels off where further codes help it no more.

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    reconstruction = GridSearchCV(scaled(Autoencoder(**network)), grid, cv=folds, refit=False)
    reconstruction.fit(X)
print(f"\n{told[0].message}\n")
classify = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
behind = Pipeline([*scaled(Autoencoder(**network)).steps, ("classify", classify)])
accuracy = GridSearchCV(behind, grid, cv=folds, refit=False).fit(X, y)

print("Autoencoder")
print(f"{'codes':<22}" + "".join(f"{k:>8}" for k in sizes))
by_score, by_use = (search.cv_results_["mean_test_score"] for search in (reconstruction, accuracy))
print(f"{'reconstruction score':<22}" + "".join(f"{score:>8.2f}" for score in by_score))
print(f"{'accuracy behind it':<22}" + "".join(f"{share:>8.3f}" for share in by_use))

assert (np.diff(by_score) > 0).all()
assert searches["VAE"].best_params_["reduce__n_components"] < max(sizes)
assert (curves["VAE"] > curves["PPCA"]).all()

# %%
# The picture
# -----------

figure, axes = plt.subplot_mosaic(
    [["likelihood", "reconstruction"], ["likelihood", "accuracy"]],
    figsize=(11, 5),
    width_ratios=[1.3, 1],
    layout="constrained",
)
left = axes["likelihood"]
styles = {"PPCA": ("s-", "tab:orange"), "VAE": ("o-", "tab:blue")}
labels = {"PPCA": "PPCA: exact", "VAE": "VAE, a fit for each size: lower bound"}
for name, (style, colour) in styles.items():
    left.plot(sizes, curves[name], style, color=colour, label=labels[name])
left.plot(
    sizes,
    curves["VAE, one nested fit"],
    "d--",
    color="tab:blue",
    markerfacecolor="white",
    label="VAE, one nested fit, truncated: lower bound",
)
for name, (_, colour) in styles.items():
    best = int(np.argmax(curves[name]))
    left.plot(sizes[best], curves[name][best], "o", markersize=17, color=colour, fillstyle="none")
left.plot([], [], "o", markersize=12, color="0.4", fillstyle="none", label="chosen by the search")
left.set(ylabel="held-out score (nats per row)", title="Likelihoods choose a size, and a model")
left.set_ylim(bottom=left.get_ylim()[0] - 4)  # room for the legend
left.legend(loc="lower right")

axes["reconstruction"].plot(sizes, by_score, "^-", color="tab:red")
axes["reconstruction"].set(
    ylabel="reconstruction score\n(nats per row)",
    title="Autoencoder: its score always likes more codes",
)
axes["accuracy"].plot(sizes, by_use, "v-", color="tab:green")
axes["accuracy"].set(
    ylabel="accuracy of a classifier\n(share of digits)", title="What the codes are for may choose"
)
for cell in axes.values():
    cell.set(xscale="log", xlabel="number of codes (n_components)")
    cell.set_xticks(sizes, sizes)
    cell.minorticks_off()
    cell.grid(color="0.92")
axes["reconstruction"].set_xlabel("")

path = Path("figures", "latent_size.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"\npicture: {path.resolve()}")
