"""
An autoencoder is not a generative model
========================================

With more codes, an `Autoencoder` reconstructs digits better, but the rows that it samples look less
like digits. Its `sample` decodes draws of a Gaussian that is fitted to the training codes, and
training only asks that the decoder reconstruct the training rows. A generative model needs three
more properties. Continuity: codes near to each other are decoded to rows near to each other.
Completeness: every code between those of the data is decoded to a realistic row. Samplability: the
codes have a known distribution that new codes can be drawn from.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors

from skae import Autoencoder
from skae.metrics import reconstruction_error
from skae.plotting import LatentSpaceDisplay, ReconstructionDisplay, SampleDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)

settings = {
    "hidden_layer_sizes": (128, 64),
    "learning_rate": "cosine",
    "learning_rate_init": 3e-3,
    "max_iter": 60,
    "tol": 0,
    "random_state": 0,
}
sizes = [2, 5, 10, 20]
models = {k: Autoencoder(k, **settings).fit(X_train) for k in sizes}


def distance(rows, data):
    """Squared distance of each row to the nearest row of the data."""
    return NearestNeighbors(n_neighbors=1).fit(data).kneighbors(rows)[0][:, 0] ** 2


# %%
# Reconstructions improve, samples do not
# ---------------------------------------
# Samples are drawn without the noise of the pixels, so that samples and reconstructions are both
# decoded codes.

n = len(X_test)
reconstructed = {k: models[k].reconstruct(X_test) for k in sizes}
sampled = {k: models[k].sample(n, noise=False, random_state=0) for k in sizes}
from_reconstruction = {k: distance(reconstructed[k], X_train) for k in sizes}
table = {
    "held-out digit to its reconstruction": [
        reconstruction_error(X_test, reconstructed[k]) for k in sizes
    ],
    "reconstruction to nearest training digit": [np.median(from_reconstruction[k]) for k in sizes],
    "sample to nearest training digit": [np.median(distance(sampled[k], X_train)) for k in sizes],
}
print("Squared distances: a mean in the first line, medians in the others")
print(f"{'n_components':<44}" + "".join(f"{k:>8}" for k in sizes))
for name, cells in table.items():
    print(f"{name:<44}" + "".join(f"{cell:>8.0f}" for cell in cells))

few, many = sizes[0], sizes[-1]
_, axes = plt.subplots(2, figsize=(8.5, 4.2), layout="constrained")
for ax, k in zip(axes, (few, many), strict=True):
    ReconstructionDisplay.from_estimator(models[k], X_test, n_samples=10, image_shape=(8, 8), ax=ax)
    ax.set_title(f"Held-out digits, reconstructed from {k} codes")

# %%
# Samples of the same two models:

_, axes = plt.subplots(1, 2, figsize=(8.5, 3.9), layout="constrained", gridspec_kw={"wspace": 0.08})
for ax, k in zip(axes, (few, many), strict=True):
    SampleDisplay(sampled[k][:20], image_shape=(8, 8), limits=(0, 16)).plot(ax)
    ax.set_title(f"Samples with {k} codes")

# %%
# Where the Gaussian misses the codes
# -----------------------------------
# The codes of the training digits, and the Gaussian that `sample` draws from (ellipses of one and
# two standard deviations). Much of the Gaussian lies where there are no codes.

model = models[few]
display = LatentSpaceDisplay.from_estimator(model, X_train, y_train)
angles = np.linspace(0, 2 * np.pi, 200)
circle = np.column_stack([np.cos(angles), np.sin(angles)])
for n_std in (1, 2):
    ellipse = model.code_mean_ + n_std * circle @ np.linalg.cholesky(model.code_covariance_).T
    display.ax_.plot(*ellipse.T, color="black", linewidth=1)
_ = display.ax_.set_title("Training codes, and the Gaussian fitted to them")

# %%
# The three properties in numbers
# -------------------------------
# Continuity: from the code of each held-out digit, a step of the same length is made in a random
# direction. The first line of the table divides a large change of the decoded row (the 95th
# percentile) by a small one (the 5th percentile). The ratio is largest with few codes.
#
# Completeness: the codes of two random training digits are averaged and decoded. The row is called
# far if it is farther from all training digits than 95 % of the reconstructions are.
#
# Samplability: a code drawn from the fitted Gaussian is called far if it is farther from all
# training codes than 95 % of the codes of held-out digits are.

rng = np.random.RandomState(0)
ratio, far_rows, far_codes = {}, {}, {}
for k, model in models.items():
    Z_train, Z_test = model.transform(X_train), model.transform(X_test)

    step = rng.standard_normal(Z_test.shape)
    step *= 0.1 * np.sqrt(np.trace(model.code_covariance_)) / np.linalg.norm(step, axis=1)[:, None]
    moved = np.sum((model.inverse_transform(Z_test + step) - reconstructed[k]) ** 2, axis=1)
    small, large = np.quantile(moved, [0.05, 0.95])
    ratio[k] = large / small

    one, other = rng.randint(len(Z_train), size=(2, n))
    between = model.inverse_transform((Z_train[one] + Z_train[other]) / 2)
    limit = np.quantile(from_reconstruction[k], 0.95)
    far_rows[k] = np.mean(distance(between, X_train) > limit)

    drawn = rng.multivariate_normal(model.code_mean_, model.code_covariance_, n)
    limit = np.quantile(distance(Z_test, Z_train), 0.95)
    far_codes[k] = np.mean(distance(drawn, Z_train) > limit)

print(f"{'n_components':<30}" + "".join(f"{k:>8}" for k in sizes) + f"{'ideal':>8}")
for name, cells, form, ideal in (
    ("large change / small change", ratio, ".1f", "1.0"),
    ("far rows (completeness)", far_rows, ".0%", "5%"),
    ("far codes (samplability)", far_codes, ".0%", "5%"),
):
    print(f"{name:<30}" + "".join(f"{cells[k]:>8{form}}" for k in sizes) + f"{ideal:>8}")

# %%
# Two models add what is missing: `VAE` makes the codes Gaussian while it trains, and
# `LatentDensityEstimator` fits a density to the codes of a trained autoencoder.

plt.show()
