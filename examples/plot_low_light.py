"""
Low light: an image from 20,000 counts
======================================

20,000 counts of the cameraman are one for 13 pixels. A kernel of one width, the best by counts
held out, restores the image at 19.4 dB. Sixteen shifted tilings of cells that are small where
the counts call for it, chosen by the same counts, foresee new counts better, by 0.006 nats
each, and restore it at 20.1 dB. Gaussians come after the kernel: they reach over the edges of
the image, which are dark for it.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.data import camera
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from threadpoolctl import threadpool_limits

from skae import CountMixtureAE, counts_to_image, sample_counts

threadpool_limits(1)  # small matrices: more threads only wait for each other

# %%
# One count for 13 pixels
# -----------------------
# The 20,000 counts are all that is known. A fifth of them, held out, chooses the settings of
# every method, never the PSNR: that needs the true image, which is for the table alone, like
# 200,000 new counts of it.

image = camera()
counts = sample_counts(image, 20_000, random_state=0)
new_counts = sample_counts(image, 200_000, random_state=1)
split = ShuffleSplit(1, test_size=0.2, random_state=0)


def nats(restored, counts):
    """Log density of counts under an image, each."""
    with np.errstate(divide="ignore"):  # log 0 is meant: no count was expected there
        return np.log(restored / restored.sum())[tuple(counts.astype(int).T)].mean()


# %%
# A fixed bandwidth
# -----------------
# A Gaussian around every count, all of the same width: the histogram through a filter, which
# takes the image for mirrored at its edges.


def smooth(counts, bandwidth):
    return gaussian_filter(counts_to_image(counts, image.shape).astype(float), bandwidth)


learned, held_out = next(split.split(counts))
bandwidths = (4, 6, 8, 10, 12, 16)
chosen_by = {h: nats(smooth(counts[learned], h), counts[held_out]) for h in bandwidths}
bandwidth = max(chosen_by, key=chosen_by.get)


def show_choice(of_what, table, best):
    print(f"{of_what:<30}" + "".join(f"{value:>10}" for value in table))
    print(f"{'':<30}" + "".join(f"{score:>10.4f}" for score in table.values()))
    print(f"{'':<30}{'chosen: ' + str(best):>10}\n")


print("Nats per count, of a fifth of the counts")
show_choice("bandwidth (pixels)", chosen_by, bandwidth)

# %%
# Mixtures
# --------
# Components adapt: small where there are edges and counts to show them, large elsewhere. The
# search ends with the best size, fitted to all 20,000 counts.


def search(model, sizes):
    found = GridSearchCV(model, {"n_components": sizes}, cv=split).fit(counts)
    return found, dict(zip(sizes, found.cv_results_["mean_test_score"], strict=True))


gaussians, scores = search(CountMixtureAE(image_shape=image.shape), (100, 200, 400, 800))
n_gaussians = gaussians.best_params_["n_components"]
show_choice("number of Gaussians", scores, n_gaussians)

tilings = CountMixtureAE(
    covariance_type="cell", n_averages=16, image_shape=image.shape, random_state=0
)
cells, scores = search(tilings, (50, 100, 200, 400))
n_cells = cells.best_params_["n_components"]
show_choice("number of cells, of 16 tilings", scores, n_cells)

# %%
# From all 20,000 counts
# ----------------------

light = image.sum()
restored = {
    "counts on each pixel": counts_to_image(counts, image.shape) * (light / len(counts)),
    f"kernel of {bandwidth} pixels": smooth(counts, bandwidth) * (light / len(counts)),
    f"{n_gaussians} Gaussians": gaussians.best_estimator_.reconstruct_image(total=light),
    f"16 x {n_cells} cells": cells.best_estimator_.reconstruct_image(total=light),
}


def psnr(picture):
    return 10 * np.log10(255**2 / np.mean((picture - image) ** 2))


decibels = {name: psnr(picture) for name, picture in restored.items()}
new_nats = {name: nats(picture, new_counts) for name, picture in restored.items()}
print(f"{len(counts)} counts; the image is scaled to its light")
print(f"{'':<24}{'nats per new count':>20}{'PSNR (dB)':>12}")
for name in restored:
    print(f"{name:<24}{new_nats[name]:>20.4f}{decibels[name]:>12.1f}")
print(f"{'the image itself':<24}{nats(image, new_counts):>20.4f}")

kernel, averaged = list(restored)[1], list(restored)[3]
assert new_nats[averaged] > new_nats[kernel] + 0.004
assert decibels[averaged] > decibels[kernel] + 0.5

# %%
# The picture
# -----------

figure, panels = plt.subplots(2, 3, figsize=(11, 7.7), layout="constrained")
for panel in panels.flat:
    panel.set(xticks=[], yticks=[], aspect="equal")
dots = panels[0, 1]
dots.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0), facecolor="black")
dots.scatter(counts[:, 1], counts[:, 0], s=0.8, c="white", linewidths=0)
dots.set_title("its 20,000 counts")
pictures = {"the image": image, **restored}
places = [panels[0, 0], panels[0, 2], *panels[1]]
for (name, picture), panel in zip(pictures.items(), places, strict=True):
    panel.imshow(picture, cmap="gray", vmin=0, vmax=255)
    panel.set_title(f"{name}: {decibels[name]:.1f} dB" if name in decibels else name)

path = Path("figures", "low_light.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"\npicture: {path.resolve()}")
