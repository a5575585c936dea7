"""
Between two digits, and where the codes are dense
=================================================

The straight line between the codes of two digits of different kinds leads through codes that
a density of the codes calls improbable, and half way the images are far from any digit.
`gaussianize` maps codes to numbers that are nearly independent and N(0, 1). A straight line
between those, mapped back, is a bent way between the same codes. It may pass other kinds of
digits, but in the median its density is nowhere lower than at the ends, and its images are
little farther from digits than those of the ends.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors

from skae import Autoencoder, LatentDensityEstimator

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)

# %%
# An autoencoder, and a density of its codes
# ------------------------------------------
# The density is fitted to the codes themselves, without the autoencoder, so that all it
# returns are codes.

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
    max_iter=40,
    random_state=0,
).fit(autoencoder.transform(X_train))

# %%
# Two ways between two codes
# --------------------------

n_steps = 9
share = np.linspace(0, 1, n_steps)


def straight(starts, ends):
    """Codes on the lines between two each."""
    pairs = zip(starts, ends, strict=True)
    return np.array([density.interpolate(start, end, n_steps) for start, end in pairs])


def gaussianized(starts, ends):
    """Codes whose normal numbers lie on the lines between those of two each.

    One such line is `density.interpolate(start, end, n_steps, path="gaussianized")`.
    """
    u0, u1 = (density.gaussianize(codes)[:, None] for codes in (starts, ends))
    lines = (1 - share[:, None]) * u0 + share[:, None] * u1
    codes = density.inverse_gaussianize(np.concatenate(lines))
    return codes.reshape(lines.shape)


ways = {"straight": straight, "gaussianized": gaussianized}

# %%
# Two hundred pairs
# -----------------
# Held-out digits, the two of each pair of different kinds. Beside log p(z), how far the decoded
# image is from the nearest training digit.

rng = np.random.RandomState(0)
one, other = rng.randint(len(X_test), size=(2, 1000))
one, other = (index[y_test[one] != y_test[other]][:200] for index in (one, other))
n_pairs = len(one)
codes = autoencoder.transform(X_test)
neighbours = NearestNeighbors(n_neighbors=1).fit(X_train)

log_density, distance = {}, {}
for name, way in ways.items():
    between = np.concatenate(way(codes[one], codes[other]))
    log_density[name] = density.score_codes(between).reshape(n_pairs, n_steps)
    nearest = neighbours.kneighbors(autoencoder.inverse_transform(between))[0] ** 2
    distance[name] = nearest.reshape(n_pairs, n_steps)

print(f"Medians of {n_pairs} pairs of held-out digits")
print(f"{'share of the way':<32}" + "".join(f"{value:>8.3g}" for value in share))
for title, found in (("log p(z)", log_density), ("distance", distance)):
    for name in ways:
        cells = np.median(found[name], axis=0)
        print(f"{f'{title}, {name}':<32}" + "".join(f"{cell:>8.1f}" for cell in cells))
half = n_steps // 2
denser = np.mean(log_density["gaussianized"][:, half] > log_density["straight"][:, half])
nearer = np.mean(distance["gaussianized"][:, half] < distance["straight"][:, half])
print(f"\nHalf way the gaussianized line is denser for {denser:.0%} of the pairs,", end=" ")
print(f"nearer to a digit for {nearer:.0%}")
lowest = {name: np.median(found.min(axis=1)) for name, found in log_density.items()}
at_ends = np.median(log_density["straight"][:, [0, -1]].min(axis=1))
print(f"Least log p(z) of a way, the median: {lowest['straight']:.1f} straight,", end=" ")
print(f"{lowest['gaussianized']:.1f} gaussianized, {at_ends:.1f} of the two ends")
assert denser > 0.9
assert nearer > 0.7

# %%
# The picture
# -----------
# Of each kind the held-out digit whose log p(z) is the median.

likelihood = density.score_codes(codes)


def typical(digit):
    """The code of a digit that is neither the most nor the least probable."""
    own = np.flatnonzero(y_test == digit)
    return codes[own[np.argsort(likelihood[own])[len(own) // 2]]]


figure = plt.figure(figsize=(13, 7), layout="constrained")
*blocks, last = figure.subfigures(2, 2, wspace=0.04, hspace=0.04).flat
colours = {"straight": "tab:red", "gaussianized": "tab:blue"}

for (start, end), block in zip([(0, 4), (6, 7), (2, 9)], blocks, strict=True):
    block.suptitle(f"From a {start} to a {end}")
    grid = block.add_gridspec(3, n_steps, height_ratios=[1, 1, 2])
    below = block.add_subplot(grid[2, :])
    for row, (name, way) in enumerate(ways.items()):
        between = way(typical(start)[None], typical(end)[None])[0]
        for column, image in enumerate(autoencoder.inverse_transform(between)):
            cell = block.add_subplot(grid[row, column])
            cell.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set_color(colours[name])
            if column == 0:
                cell.set_ylabel(name, rotation=0, ha="right", va="center", color=colours[name])
        below.plot(density.score_codes(between), "o-", color=colours[name])
    below.set(xlim=(-0.5, n_steps - 0.5), xticks=[], ylabel="log p(z), nats")

last.suptitle(f"{n_pairs} pairs: median, and the middle half")
for axes, title, found in zip(
    last.subplots(1, 2),
    ("log p(z), nats", "squared distance of the image\nto the nearest training digit"),
    (log_density, distance),
    strict=True,
):
    for name, values in found.items():
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
        axes.fill_between(share, low, high, color=colours[name], alpha=0.15, linewidth=0)
        axes.plot(share, middle, "o-", color=colours[name], label=name)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("share of the way")
axes.set_ylim(0, None)
axes.legend(loc="lower center")

path = Path("figures", "latent_interpolation.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"\npicture: {path.resolve()}")
