"""
Interpolate between two digits through likely codes
===================================================

The straight line between the codes of two digits with different labels leads through codes of low
density. Half way, the decoded images are far from any digit. ``gaussianize`` maps codes to numbers
that are nearly independent and follow N(0, 1). A straight line between such numbers, mapped back,
is a curve between the same two codes. This curve may pass through codes of other digits. Its
median density is nowhere lower than at its ends, and its images stay almost as close to digits as
the images at its ends.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors

from skae import Autoencoder, LatentDensityEstimator
from skae.plotting import InterpolationDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, _, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)

# %%
# An autoencoder and a density of its codes
# -----------------------------------------
# The density is fitted to the codes, without the autoencoder, so that its rows are codes.

autoencoder = Autoencoder(
    10,
    hidden_layer_sizes=(128, 64),
    learning_rate_init=3e-3,
    max_iter=100,
    tol=0,
    random_state=0,
).fit(X_train)
density = LatentDensityEstimator(
    n_mixture=10,
    n_channels=32,
    position_embedding=True,
    weight_averaging=0.99,
    learning_rate_init=5e-3,
    max_iter=30,
    random_state=0,
).fit(autoencoder.transform(X_train))

# %%
# Three pairs of digits
# ---------------------
# For each label, we take the test digit whose log p(z) is the median of its label. The display
# decodes codes on the straight line between the two codes of each pair.

codes = autoencoder.transform(X_test)
log_likelihood = density.score_codes(codes)


def typical(label):
    """Index of the test digit with the median log-likelihood of its label."""
    own = np.flatnonzero(y_test == label)
    return own[np.argsort(log_likelihood[own])[len(own) // 2]]


ends = [typical(label) for label in (0, 4, 6, 7, 2, 9)]
display = InterpolationDisplay.from_estimator(autoencoder, X_test[ends], image_shape=(8, 8))
title = display.figure_.suptitle("Straight lines between two codes")

# %%
# ``interpolate`` with ``path="gaussianized"`` gives codes on the curve:

curves = [
    density.interpolate(codes[start], codes[end], 9, path="gaussianized")
    for start, end in zip(ends[::2], ends[1::2], strict=True)
]
images = [autoencoder.inverse_transform(curve) for curve in curves]
display = InterpolationDisplay(images, image_shape=(8, 8), limits=(0, 16)).plot()
title = display.figure_.suptitle("Straight lines between gaussianized codes")

# %%
# Two hundred pairs
# -----------------
# The two test digits of each pair have different labels. We measure log p(z) along both paths, and
# the squared distance of each decoded image to its nearest training digit.

n_steps = 9
fraction = np.linspace(0, 1, n_steps)
rng = np.random.RandomState(0)
one, other = rng.randint(len(X_test), size=(2, 1000))
one, other = (index[y_test[one] != y_test[other]][:200] for index in (one, other))
neighbours = NearestNeighbors(n_neighbors=1).fit(X_train)


def lines(starts, ends):
    """Points on the lines between pairs of rows, of shape (n_pairs, n_steps, n_codes)."""
    return (1 - fraction[:, None]) * starts[:, None] + fraction[:, None] * ends[:, None]


# What ``interpolate`` does for one pair, here for all pairs in one call
u = density.gaussianize(codes)
gaussianized = density.inverse_gaussianize(np.concatenate(lines(u[one], u[other])))
paths = {"straight": np.concatenate(lines(codes[one], codes[other])), "gaussianized": gaussianized}
log_density = {name: density.score_codes(path).reshape(-1, n_steps) for name, path in paths.items()}
distance = {}
for name, path in paths.items():
    nearest = neighbours.kneighbors(autoencoder.inverse_transform(path))[0] ** 2
    distance[name] = nearest.reshape(-1, n_steps)

print(f"Medians of {len(one)} pairs of test digits")
print(f"{'fraction of the path':<32}" + "".join(f"{value:>8.3g}" for value in fraction))
for title, found in (("log p(z)", log_density), ("squared distance", distance)):
    for name in paths:
        cells = np.median(found[name], axis=0)
        print(f"{f'{title}, {name}':<32}" + "".join(f"{cell:>8.1f}" for cell in cells))
half = n_steps // 2
denser = np.mean(log_density["gaussianized"][:, half] > log_density["straight"][:, half])
nearer = np.mean(distance["gaussianized"][:, half] < distance["straight"][:, half])
print(f"\nHalf way, the gaussianized path has the higher density for {denser:.0%} of the pairs,")
print(f"and the image nearer to a training digit for {nearer:.0%} of them.")
lowest = {name: np.median(found.min(axis=1)) for name, found in log_density.items()}
at_ends = np.median(log_density["straight"][:, [0, -1]].min(axis=1))
print(f"Median of the lowest log p(z) of a path: straight {lowest['straight']:.1f},", end=" ")
print(f"gaussianized {lowest['gaussianized']:.1f}, the two ends alone {at_ends:.1f}")
assert denser > 0.9
assert nearer > 0.7

# %%
# Medians, and the range from the first to the third quartile:

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
labels = ("log p(z) (nats)", "squared distance to the\nnearest training digit")
for cell, label, found in zip(axes, labels, (log_density, distance), strict=True):
    cell.set(xlabel="fraction of the path", ylabel=label)
    for (name, values), colour, style in zip(
        found.items(), ("#D55E00", "#0072B2"), ("s--", "o-"), strict=True
    ):
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
        cell.fill_between(fraction, low, high, color=colour, alpha=0.15, linewidth=0)
        cell.plot(fraction, middle, style, color=colour, label=name)
    cell.legend(title="path")

plt.show()
