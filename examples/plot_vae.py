"""
Samples, traversals, missing halves: one VAE of the digits
==========================================================

A variational autoencoder is a model of how rows arise, z ~ N(0, I) and then x ~ p(x|z), so
it answers what a plain autoencoder cannot: it draws new rows, shows what each latent stands
for, fills in a half that is missing better than PPCA, its linear kin, and, given labels,
draws the digit that is asked for.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from skae import PPCA, VAE

X, y = load_digits(return_X_y=True)
X = X / 16
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)
X_half = np.where(np.arange(64) < 32, X_test, np.nan)

# %%
# Rows and halves of rows
# -----------------------
# NaN is a value not seen. The encoder sees every training digit twice, as it is and without
# its lower half, so that it knows both kinds of rows.

settings = {
    "n_components": 10,
    "hidden_layer_sizes": (256,),
    "learning_rate": "cosine",
    "learning_rate_init": 3e-3,
    "tol": 0,
    "random_state": 0,
}
halves = np.where(np.arange(64) < 32, X_train, np.nan)
vae = VAE(max_iter=60, **settings).fit(np.concatenate([X_train, halves]))
ppca = {k: PPCA(k).fit(X_train) for k in (10, 30)}

# %%
# Samples
# -------
# Without pixel noise: means of p(x|z). Beside them, how near the digits are to each other.


def distance(rows):
    """Squared distance to the nearest training digit, the median."""
    nearest = NearestNeighbors(n_neighbors=1).fit(X_train).kneighbors(rows)[0]
    return np.median(nearest**2)


drawn = vae.sample(500, noise=False, random_state=0)
linear = ppca[10].sample(500, noise=False, random_state=0)
print("Squared distance to the nearest training digit, median of 500")
for name, rows in (
    ("digits held out", X_test),
    ("the same, reconstructed", vae.reconstruct(X_test)),
    ("drawn by the VAE", drawn),
    ("drawn by PPCA(10)", linear),
):
    print(f"{name:<26}{distance(rows):>6.2f}")

# %%
# The missing half
# ----------------
# PPCA's means are exact; the VAE's come from 1000 weighted draws of z for each row.

lost = np.isnan(X_half)
filled = {
    "mean": np.where(lost, X_train.mean(axis=0), X_test),
    "PPCA(10)": ppca[10].impute(X_half),
    "PPCA(30)": ppca[30].impute(X_half),
    "VAE(10)": vae.impute(X_half, n_importance=1000),
}
errors = {name: np.sqrt(np.mean((rows - X_test)[lost] ** 2)) for name, rows in filled.items()}
print("\nRMSE of the lower half of 500 digits, in pixels from 0 to 1")
for name, error in errors.items():
    print(f"{name:<26}{error:>6.3f}")
assert errors["VAE(10)"] < errors["PPCA(30)"] < errors["mean"]

# %%
# With labels
# -----------
# `conditional=True` learns p(x|z, y). The encoder does not see y, and may tell the decoder
# what digit it is all the same; with a larger `beta` it leaves that to y. A classifier of the
# training digits reads what is drawn.

conditional = VAE(conditional=True, beta=3, max_iter=80, **settings).fit(X_train, y_train)
asked = np.tile(conditional.classes_, 50)
answers = conditional.sample(len(asked), y=asked, noise=False, random_state=0)
judge = KNeighborsClassifier(3).fit(X_train, y_train)
print(f"\nThe judge knows {judge.score(X_test, y_test):.1%} of the digits held out,", end=" ")
print(f"and {judge.score(answers, asked):.1%} of those drawn for a label")
assert judge.score(answers, asked) > 0.8

# %%
# The picture
# -----------
# Traversed are the latents with the largest divergence from the prior, that is, which say
# most.

figure = plt.figure(figsize=(13, 8.6), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1, 1.1])
grey = plt.get_cmap("gray_r").with_extremes(bad="tab:orange")


def draw(block, title, rows):
    block.suptitle(title)
    n_columns = len(next(iter(rows.values())))
    grid = block.subplots(len(rows), n_columns)
    for (name, images), line in zip(rows.items(), grid, strict=True):
        for image, cell in zip(images, line, strict=True):
            cell.imshow(image.reshape(8, 8), cmap=grey, vmin=0, vmax=1)
            cell.set(xticks=[], yticks=[])
        line[0].set_ylabel(name.strip(), rotation=0, ha="right", va="center")
    return grid


upper, lower = left.subfigures(2, 1, height_ratios=[4, 5])
rows = {"held out": X_test[:10], " ": X_test[10:20], "drawn": drawn[:10], "  ": drawn[10:20]}
draw(upper, "Digits, and samples (means of p(x|z))", rows)

values = np.linspace(-2.5, 2.5, 9)
largest = np.argsort(vae.elbo_terms(X_test).kl_per_latent.mean(axis=0))[::-1][:5]
digit = X_test[np.flatnonzero(y_test == 3)[0]]
grid = draw(
    lower,
    "One digit, one latent at a time set to other values",
    {f"latent {k}": vae.traverse(digit, k, values) for k in largest},
)
for value, cell in zip(values, grid[-1], strict=True):
    cell.set_xlabel(f"{value:.1f}")
lower.supxlabel("value of the latent (prior: N(0, 1))", fontsize=10)

upper, lower = right.subfigures(2, 1, height_ratios=[7, 5])
shown = [np.flatnonzero(y_test == label)[0] for label in range(10)]
draws = vae.impute(X_half[shown], n_draws=2, n_importance=1000, random_state=0)
rows = {"truth": X_test[shown], "seen": X_half[shown]}
for name in ("mean", "PPCA(30)", "VAE(10)"):
    rows[f"{name}\nRMSE {errors[name]:.3f}"] = filled[name][shown]
rows |= {"VAE, a draw": draws[0], "another": draws[1]}
draw(upper, "The lower half is missing", rows)

grid = draw(
    lower,
    "Samples given the label, one column each",
    {" " * k: answers[10 * k : 10 * (k + 1)] for k in range(5)},
)
for label, cell in zip(conditional.classes_, grid[0], strict=True):
    cell.set_title(f"{label}")

path = Path("figures", "vae.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"\npicture: {path.resolve()}")
