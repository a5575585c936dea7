"""
A density of its codes makes any autoencoder generative
=======================================================

An Autoencoder that was trained for nothing but reconstruction stays as it is, and is sampled
three times: by the Gaussian of its codes, which is what `Autoencoder.sample` draws from, by a
mixture of Gaussians, and by an autoregressive density. The decoder is the same, but nearly
twice as many samples of the last two are clear digits: what was missing is a density that
fits the codes. Which of the two, held-out scores tell: for these few digits the mixture.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patheffects import withStroke
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors

from skae import Autoencoder, LatentDensityEstimator

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)

# %%
# Two autoencoders, three densities of the codes of each
# ------------------------------------------------------
# 2 codes can be looked at, 10 reconstruct better. FrozenEstimator keeps `fit` from training
# the autoencoder again.

sizes = [2, 10]
autoencoders = {
    k: Autoencoder(
        k,
        hidden_layer_sizes=(128, 64),
        learning_rate_init=3e-3,
        max_iter=100,
        tol=0,
        random_state=0,
    ).fit(X_train)
    for k in sizes
}
causal = {
    "n_mixture": 10,
    "n_channels": 32,
    "position_embedding": True,
    "weight_averaging": 0.99,
    "learning_rate_init": 5e-3,
    "max_iter": 40,
}
settings = {
    "Gaussian": {"density": GaussianMixture(1)},
    "mixture of 20": {"density": GaussianMixture(20, reg_covar=1e-3)},
    "autoregressive": {"density": "autoregressive", **causal},
}
models = {
    (k, name): LatentDensityEstimator(
        FrozenEstimator(autoencoders[k]), random_state=0, **setting
    ).fit(X_train)
    for k in sizes
    for name, setting in settings.items()
}

# %%
# Scores
# ------
# log p(z) of held-out codes: it compares densities of the same codes, so read it along a
# line, not between 2 and 10. `data_score_samples` bounds log p(x) from below, and compares
# all six.

some = X_test[:200]
print("Held-out digits, mean nats per digit")
print(f"{'':<34}" + "".join(f"{name:>16}" for name in settings))
score = {key: model.score(X_test) for key, model in models.items()}
bound = {key: model.data_score_samples(some, n_draws=64).mean() for key, model in models.items()}
for title, cells in (("log p(z)", score), ("bound on log p(x)", bound)):
    for k in sizes:
        line = "".join(f"{cells[k, name]:>16.2f}" for name in settings)
        print(f"{f'{title}, {k} codes':<34}{line}")

# %%
# Samples
# -------
# Without pixel noise: what the decoder makes of the codes that were drawn. A sample counts as
# clear if the 5 training digits nearest to it are all of one kind.

n = len(X_test)
neighbours = NearestNeighbors(n_neighbors=5).fit(X_train)


def quality(rows):
    """Squared distance to the nearest training digit (median), and the share of clear rows."""
    distance, index = neighbours.kneighbors(rows)
    kinds = y_train[index]
    return np.median(distance[:, 0] ** 2), np.mean((kinds == kinds[:, :1]).all(axis=1))


k = sizes[-1]
drawn = {name: models[k, name].sample(n, noise=False, random_state=0) for name in settings}
drawn["Gaussian"] = autoencoders[k].sample(n, noise=False, random_state=0)
found = {"held-out digits": X_test, "reconstructed": autoencoders[k].reconstruct(X_test), **drawn}
print(f"\n{f'{k} codes, {n} rows of each kind':<34}{'nearest digit':>16}{'clear':>16}")
table = {name: quality(rows) for name, rows in found.items()}
for name, (nearest, clear) in table.items():
    print(f"{name:<34}{nearest:>16.0f}{clear:>16.0%}")
for name in ("mixture of 20", "autoregressive"):
    assert all(score[k, name] > score[k, "Gaussian"] for k in sizes)
    assert all(bound[k, name] > bound[k, "Gaussian"] for k in sizes)
    assert table[name][0] < 0.6 * table["Gaussian"][0]

# %%
# The picture
# -----------
# Codes of the training digits, and the first samples of each kind.


def tiled(rows, n_columns):
    """Digits side by side, as one image."""
    cells = np.pad(rows.reshape(-1, 8, 8), ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    return cells.reshape(-1, n_columns, 9, 9).swapaxes(1, 2).reshape(-1, 9 * n_columns)[:-1, :-1]


grey = plt.get_cmap("gray_r").with_extremes(bad="0.85")
figure = plt.figure(figsize=(13, 6.2), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1, 1.1])

left.suptitle("2 codes: the training digits', and as many draws")
grid = left.subplots(2, 2, sharex=True, sharey=True)
codes = autoencoders[2].transform(X_train)
for digit in range(10):
    grid[0, 0].scatter(*codes[y_train == digit].T, s=3, color=f"C{digit}")
    middle = np.median(codes[y_train == digit], axis=0)
    label = grid[0, 0].annotate(str(digit), middle, ha="center", va="center", weight="bold")
    label.set_path_effects([withStroke(linewidth=3, foreground="white")])
grid[0, 0].set_title("codes of the digits", fontsize=10)
for name, axes in zip(settings, grid.flat[1:], strict=True):
    draws = models[2, name].sample_latent(len(codes), random_state=0)
    axes.scatter(*draws.T, s=3, color="0.25")
    axes.set_title(f"{name}: log p(z) {score[2, name]:.2f}", fontsize=10)
for axes in grid[1]:
    axes.set_xlabel("code 0")
for axes in grid[:, 0]:
    axes.set_ylabel("code 1")

right.suptitle("10 codes: one decoder, codes drawn from three densities")
shown = {name: rows[: 20 if name in settings else 10] for name, rows in found.items()}
heights = [len(rows) for rows in shown.values()]
for (name, rows), axes in zip(
    shown.items(), right.subplots(len(shown), 1, height_ratios=heights), strict=True
):
    axes.imshow(tiled(rows, 10), cmap=grey, vmin=0, vmax=16)
    axes.set(xticks=[], yticks=[])
    label = f"{name},\nlog p(z) {score[k, name]:.1f}" if name in settings else name
    axes.set_ylabel(label, rotation=0, ha="right", va="center")

path = Path("figures", "latent_density.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"\npicture: {path.resolve()}")
