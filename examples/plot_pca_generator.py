"""
PCA becomes a generator
=======================

PCA's codes are uncorrelated. Of draws from a Gaussian of them, which is all that PCA knows of
their distribution, fewer than half are clear digits. LatentDensityEstimator(PCA(32)) keeps the
components, learns how the codes depend on each other, and draws codes of which the same
linear decoder makes nearly twice as many.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors

from skae import LatentDensityEstimator, LinearAE

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)

# %%
# The same components, two densities
# ----------------------------------
# A mixture of one is the Gaussian. LinearAE, which is PCA that samples, draws from one too, but
# counts what it takes for noise out of the variance of the codes.

gaussian = LatentDensityEstimator(PCA(32), density=GaussianMixture(1), random_state=0)
gaussian.fit(X_train)
linear = LinearAE(32).fit(X_train)
model = LatentDensityEstimator(
    PCA(32),
    n_mixture=5,
    n_channels=24,
    position_embedding=True,
    weight_averaging=0.99,
    learning_rate_init=1e-2,
    max_iter=40,
    random_state=0,
).fit(X_train)

print("log p(z) of the codes of digits held out, mean nats")
scores = {"Gaussian": gaussian.score(X_test), "learned density": model.score(X_test)}
for name, score in scores.items():
    print(f"{name:<34}{score:>12.1f}")

# %%
# Samples
# -------
# A row counts as clear if the 5 training digits nearest to it are all of one kind. The
# distance to the nearest also tells whether samples are copies: those would be at 0.

n = len(X_test)
drawn = {
    "LinearAE": linear.sample(n, noise=False, random_state=0),
    "Gaussian": gaussian.sample(n, random_state=0),
    "learned density": model.sample(n, random_state=0),
}
rows = {"held-out digits": X_test, "their 32 components": model.reconstruct(X_test), **drawn}
neighbours = NearestNeighbors(n_neighbors=5).fit(X_train)
print(f"\n{f'{n} rows of each kind':<34}{'nearest':>12}{'clear':>12}")
clear = {}
for name, images in rows.items():
    distance, index = neighbours.kneighbors(images)
    kinds = y_train[index]
    clear[name] = np.mean((kinds == kinds[:, :1]).all(axis=1))
    print(f"{name:<34}{np.median(distance[:, 0] ** 2):>12.0f}{clear[name]:>12.0%}")
assert scores["learned density"] > scores["Gaussian"] + 3
assert clear["learned density"] > clear["Gaussian"] + 0.2

# %%
# The picture
# -----------


def tiled(rows, n_columns):
    """Digits side by side, as one image."""
    cells = np.pad(rows.reshape(-1, 8, 8), ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    return cells.reshape(-1, n_columns, 9, 9).swapaxes(1, 2).reshape(-1, 9 * n_columns)[:-1, :-1]


grey = plt.get_cmap("gray_r").with_extremes(bad="0.85")
figure = plt.figure(figsize=(13, 5.2), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[3.3, 1])
columns = {
    "digits held out": X_test,
    "PCA, a Gaussian of its codes": drawn["Gaussian"],
    "PCA, a learned density": drawn["learned density"],
}
for axes, (title, images) in zip(left.subplots(1, 3), columns.items(), strict=True):
    axes.imshow(tiled(images[:48], 6), cmap=grey, vmin=0, vmax=16)
    axes.set(xticks=[], yticks=[], title=title)

right.suptitle("Two of the 32 codes")
grid = right.subplots(3, 1, sharex=True, sharey=True)
for axes, (title, images) in zip(grid, columns.items(), strict=True):
    axes.scatter(*model.transform(images)[:, :2].T, s=4, color="0.2")
    axes.set_title(title, fontsize=10)
    axes.set_ylabel("code 1")
grid[-1].set_xlabel("code 0")

path = Path("figures", "pca_generator.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"\npicture: {path.resolve()}")
