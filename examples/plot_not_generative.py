"""
A plain autoencoder is not a generative model
=============================================

With more codes an autoencoder reconstructs digits better, and samples poorer ones: rows
decoded from a Gaussian fitted to the codes move away from anything that is a digit.
Training asks that the decoder undo the encoder on the training rows, and nothing else.
Three properties are missing that a generative model has: continuity, near codes decode to
near rows; completeness, every code between those of the data decodes to a sensible row;
samplability, the codes have a distribution that one can draw from.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Ellipse
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors

from skae import Autoencoder

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)

sizes = [2, 5, 10, 20]
models = {
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


def distance(rows, data):
    """Squared distance of each row to the nearest row of the data."""
    return NearestNeighbors(n_neighbors=1).fit(data).kneighbors(rows)[0][:, 0] ** 2


# %%
# Good reconstructions, poor samples
# ----------------------------------
# Sampled without pixel noise, so that both are what the decoder makes of a code.

n = len(X_test)
reconstructed = {k: models[k].reconstruct(X_test) for k in sizes}
sampled = {k: models[k].sample(n, noise=False, random_state=0) for k in sizes}
table = {
    "error of a reconstruction": {
        k: np.mean(np.sum((reconstructed[k] - X_test) ** 2, axis=1)) for k in sizes
    },
    "from a reconstruction to the nearest digit": {
        k: np.median(distance(reconstructed[k], X_train)) for k in sizes
    },
    "from a sample to the nearest digit": {
        k: np.median(distance(sampled[k], X_train)) for k in sizes
    },
}
print("Digits held out; squared distances, to the training digits (medians)")
print(f"{'n_components':<44}" + "".join(f"{k:>8}" for k in sizes))
for name, cells in table.items():
    print(f"{name:<44}" + "".join(f"{cells[k]:>8.0f}" for k in sizes))

# %%
# The three properties
# --------------------
# Continuity: nothing bounds how steep the decoder is. Steps of one length in a random
# direction, from every held-out code, move the row by different amounts, most so with few
# codes, where the kinds of digits crowd: large is the 95th percentile, small the 5th.
#
# Completeness: the row half way between two training codes need not be a digit. It counts
# as far if it is farther from all training digits than 95 % of the reconstructions are.
#
# Samplability: draws from the fitted Gaussian fall where no codes are. A code counts as
# far if it is farther from all training codes than 95 % of the held-out codes are.

rng = np.random.RandomState(0)
steep, gaps, astray = {}, {}, {}
for k, model in models.items():
    Z_train, Z_test = model.transform(X_train), model.transform(X_test)

    step = rng.standard_normal(Z_test.shape)
    step *= 0.1 * np.sqrt(np.trace(model.code_covariance_)) / np.linalg.norm(step, axis=1)[:, None]
    moved = np.sum((model.inverse_transform(Z_test + step) - reconstructed[k]) ** 2, axis=1)
    small, large = np.quantile(moved, [0.05, 0.95])
    steep[k] = large / small

    one, other = rng.randint(len(Z_train), size=(2, n))
    between = model.inverse_transform((Z_train[one] + Z_train[other]) / 2)
    limit = np.quantile(distance(reconstructed[k], X_train), 0.95)
    gaps[k] = np.mean(distance(between, X_train) > limit)

    drawn = rng.multivariate_normal(model.code_mean_, model.code_covariance_, n)
    limit = np.quantile(distance(Z_test, Z_train), 0.95)
    astray[k] = np.mean(distance(drawn, Z_train) > limit)

print("\nContinuity, completeness, samplability; at best 1, 5 % and 5 %")
print(f"{'n_components':<44}" + "".join(f"{k:>8}" for k in sizes))
print(f"{'large over small moves, equal steps':<44}" + "".join(f"{steep[k]:>8.1f}" for k in sizes))
print(f"{'far rows, half way between two codes':<44}" + "".join(f"{gaps[k]:>8.0%}" for k in sizes))
print(f"{'far codes, of the Gaussian':<44}" + "".join(f"{astray[k]:>8.0%}" for k in sizes))

# %%
# The picture
# -----------
# The codes need a density that fits them. A variational autoencoder builds one into
# training; LatentDensityEstimator learns one of any trained autoencoder's codes.

few, many = sizes[0], sizes[-1]
shown = np.arange(10)
rows = {
    "held out": X_test,
    f"{few} codes:\nreconstructed": reconstructed[few],
    "sampled": sampled[few],
    f"{many} codes:\nreconstructed": reconstructed[many],
    "sampled ": sampled[many],
}

figure = plt.figure(figsize=(12, 4.6), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1, 1.45])

axes = left.subplots()
model = models[few]
Z = model.transform(X_train)
for digit in range(10):
    axes.scatter(*Z[y_train == digit].T, s=5, color=f"C{digit}", label=str(digit))
variance, directions = np.linalg.eigh(model.code_covariance_)
angle = np.degrees(np.arctan2(directions[1, 0], directions[0, 0]))
for deviations in (1, 2):
    width, height = 2 * deviations * np.sqrt(variance)
    axes.add_patch(
        Ellipse(model.code_mean_, width, height, angle=angle, fill=False, edgecolor="black")
    )
axes.set(xlabel="code 0", ylabel="code 1", title="Training codes, and their Gaussian (1 and 2 sd)")
axes.legend(markerscale=3, ncols=10, loc="upper center", columnspacing=0.4, handletextpad=-0.4)
axes.margins(y=0.15)

right.suptitle("Reconstructions gain from more codes, samples lose")
grid = right.subplots(len(rows), len(shown))
for (name, images), line in zip(rows.items(), grid, strict=True):
    for image, cell in zip(images[shown], line, strict=True):
        cell.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        cell.set(xticks=[], yticks=[])
    line[0].set_ylabel(name.strip(), rotation=0, ha="right", va="center")

path = Path("figures", "not_generative.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"\npicture: {path.resolve()}")
