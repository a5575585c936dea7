"""
Low light: restore an image from 20,000 counts
==============================================

The cameraman image has 13 times as many pixels as there are counts here. Three methods restore it
from 20,000 counts, with settings that held-out counts choose. A Gaussian kernel of one width
restores the image with a PSNR of 19.4 dB, the average of 16 shifted tilings, whose cells are small
where there are many counts, with 20.1 dB, and the default of CountMixtureAE with 20.9 dB.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.data import camera
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from threadpoolctl import threadpool_limits

from skae import CountMixtureAE, counts_to_image, sample_counts
from skae.plotting import IntensityDisplay

threadpool_limits(1)  # matrices are small, so that more threads would be slower

# %%
# One count for 13 pixels
# -----------------------
# The 20,000 counts are all that the methods know. A fifth of them is held out to choose the
# settings of every method. The PSNR needs the true image and is computed only for the table, as is
# the log-likelihood of 200,000 new counts.

image = camera()
counts = sample_counts(image, 20_000, random_state=0)
new_counts = sample_counts(image, 200_000, random_state=1)
split = ShuffleSplit(1, test_size=0.2, random_state=0)


def mean_nats(restored, counts):
    """Mean log density of counts under a restored image."""
    with np.errstate(divide="ignore"):  # log 0 is correct where no counts are expected
        return np.log(restored / restored.sum())[tuple(counts.astype(int).T)].mean()


# %%
# A kernel of one width
# ---------------------
# The kernel density is the histogram of the counts, filtered by a Gaussian. The filter continues
# the image beyond its edges by reflection.


def smooth(counts, bandwidth):
    return gaussian_filter(counts_to_image(counts, image.shape).astype(float), bandwidth)


learned, held_out = next(split.split(counts))
kernel_scores = {
    bandwidth: mean_nats(smooth(counts[learned], bandwidth), counts[held_out])
    for bandwidth in (4, 6, 8, 10, 12, 16)
}
bandwidth = max(kernel_scores, key=kernel_scores.get)


def print_choice(setting, scores, best):
    print(f"{setting:<36}" + "".join(f"{value:>10}" for value in scores))
    print(f"{'nats per held-out count':<36}" + "".join(f"{s:>10.4f}" for s in scores.values()))
    print(f"chosen: {best}\n")


print_choice("bandwidth (pixels)", kernel_scores, bandwidth)

# %%
# Mixtures
# --------
# With its default parameters, the model chooses between a density on pixels and Gaussians, and how
# much to smooth, by held-out counts of its own. The number of cells of tilings, which describe the
# image with fewer numbers, is found by a search.

default = CountMixtureAE(image_shape=image.shape, random_state=0).fit(counts)
print(f"chosen: covariance_type={default.covariance_type_!r}\n")


def search(model, sizes):
    found = GridSearchCV(model, {"n_components": sizes}, cv=split).fit(counts)
    return found, dict(zip(sizes, found.cv_results_["mean_test_score"], strict=True))


tilings = CountMixtureAE(
    covariance_type="cell", n_averages=16, image_shape=image.shape, random_state=0
)
cells, scores = search(tilings, (100, 200, 400))
n_cells = cells.best_params_["n_components"]
print_choice("number of cells of each of 16 tilings", scores, n_cells)

# %%
# The counts, and the intensity that the default model expects:

display = IntensityDisplay.from_estimator(default, counts)

# %%
# Restored images
# ---------------
# All images are scaled to the total intensity of the true image.

total = image.sum()
restored = {
    "counts on each pixel": counts_to_image(counts, image.shape) * (total / len(counts)),
    f"kernel of {bandwidth} pixels": smooth(counts, bandwidth) * (total / len(counts)),
    "default": default.reconstruct_image(total=total),
    f"16 x {n_cells} cells": cells.best_estimator_.reconstruct_image(total=total),
}


def psnr(picture):
    return 10 * np.log10(255**2 / np.mean((picture - image) ** 2))


decibels = {name: psnr(picture) for name, picture in restored.items()}
new_nats = {name: mean_nats(picture, new_counts) for name, picture in restored.items()}
print(f"{'':<24}{'nats per new count':>20}{'PSNR (dB)':>12}")
for name in restored:
    print(f"{name:<24}{new_nats[name]:>20.4f}{decibels[name]:>12.1f}")
print(f"{'true image':<24}{mean_nats(image, new_counts):>20.4f}")

_, kernel, chosen, averaged = restored
assert new_nats[chosen] > new_nats[kernel] + 0.004
assert decibels[chosen] > decibels[averaged] > decibels[kernel]

figure, axes = plt.subplots(2, 2, figsize=(6.4, 6.8), layout="constrained")
pictures = {"true image": image, **dict(list(restored.items())[1:])}
for cell, (name, picture) in zip(axes.flat, pictures.items(), strict=True):
    cell.imshow(picture, cmap="gray", vmin=0, vmax=255)
    cell.set_axis_off()
    cell.set_title(f"{name}: {decibels[name]:.1f} dB" if name in decibels else name)

plt.show()
