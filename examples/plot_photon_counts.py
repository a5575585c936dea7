"""
An image as a million photon counts, and back
=============================================

``CountMixtureAE`` learns an intensity from the places of photon counts alone. The code of a count
is the component of the mixture that it belongs to. From 1,000,000 counts of the cameraman image,
10,000 Gaussians restore the image with a PSNR of 23 dB; they store 3% as many numbers as the counts
have. Eight shifted tilings of 2500 cells store 2% and restore the image with 26 dB. Held-out counts
choose the number of cells. The histogram of the counts over pixels has 12 dB. A colour image has
one sample of counts for each channel.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage.data import astronaut, camera
from threadpoolctl import threadpool_limits

from skae import CountMixtureAE, counts_to_image, image_to_counts, sample_counts
from skae.plotting import IntensityDisplay

threadpool_limits(1)  # matrices are small, so that more threads would be slower

# %%
# The counts
# ----------
# Counts are drawn at random with the image as their density. Two more samples are held out: one to
# choose the number of cells, and one for the scores of the table.

image = camera()
counts = sample_counts(image, 1_000_000, random_state=0)
valid_counts = sample_counts(image, 100_000, random_state=1)
test_counts = sample_counts(image, 100_000, random_state=2)

# %%
# Learning
# --------
# A million counts fall on 220,000 pixels. The models are fitted to these pixels, weighted by their
# counts, which is much faster. Cells are the same as for the counts; Gaussians lose only the
# positions of counts within pixels.


def learn(counts, shape, n_components, **settings):
    X, sample_weight = image_to_counts(counts_to_image(counts, shape))
    model = CountMixtureAE(n_components, image_shape=shape, random_state=0, **settings)
    return model.fit(X, sample_weight=sample_weight)


# %%
# Choose the number of cells
# --------------------------
# Components are Gaussians or cells. Cells are boxes that tile the image and are small where there
# are many counts. The log-likelihood of held-out counts chooses their number. The PSNR cannot
# choose it in practice, because it needs the true image. A single tiling is enough for this choice.


valid_nats = {
    size: learn(counts, image.shape, size, covariance_type="cell").score(valid_counts)
    for size in (1250, 2500, 5000)
}
n_cells = max(valid_nats, key=valid_nats.get)
print("number of cells        " + "".join(f"{size:>10}" for size in valid_nats))
print("nats per held-out count" + "".join(f"{nats:>10.4f}" for nats in valid_nats.values()))
print(f"chosen: {n_cells}")

# %%
# Three models
# ------------
# A tiling has edges where the image has none. Eight tilings that are shifted against each other
# have their edges in different places. Their average has a higher likelihood, and stores eight
# times as many numbers.

n_averages = 8
gaussians, cells, averaged = "100² Gaussians", f"{n_cells} cells", f"{n_averages} x {n_cells} cells"
models = {
    gaussians: learn(counts, image.shape, 100**2),
    cells: learn(counts, image.shape, n_cells, covariance_type="cell"),
    averaged: learn(counts, image.shape, n_cells, covariance_type="cell", n_averages=n_averages),
}

display = IntensityDisplay.from_estimator(models[averaged], counts)

# %%
# Restored images
# ---------------
# ``reconstruct_image`` integrates the intensity over pixels, and scales it to the total intensity
# of the true image. For 10,000 Gaussians that takes several seconds, and we evaluate their density
# at the centres of pixels instead. The last column of the table compares the numbers that a model
# stores with the two coordinates of each count.


def psnr(restored, truth):
    return 10 * np.log10(255**2 / np.mean((restored - truth) ** 2))


def scaled_histogram(counts, truth):
    return counts_to_image(counts, truth.shape) * (truth.sum() / len(counts))


def print_line(name, psnr, nats, stored):
    print(f"{name:<34}{psnr:>8.1f}{nats:>16}{stored:>14.2f}")


centres = np.indices(image.shape).reshape(2, -1).T + 0.5
density = np.exp(models[gaussians].score_samples(centres)).reshape(image.shape)
restored = {gaussians: density * (image.sum() / density.sum())}
for name in (cells, averaged):
    restored[name] = models[name].reconstruct_image(total=image.sum())
nats = {name: model.score(test_counts) for name, model in models.items()}
stored = {name: 100 / model.compression_ratio_ for name, model in models.items()}
histogram = scaled_histogram(counts, image)
decibels = {name: psnr(picture, image) for name, picture in restored.items()}

print(f"{'':<34}{'PSNR':>8}{'nats per':>16}{'% of numbers':>14}")
print(f"{'cameraman, 1,000,000 counts':<34}{'(dB)':>8}{'test count':>16}{'stored':>14}")
print_line("histogram of counts", psnr(histogram, image), "", 100 * image.size / counts.size)
for name in models:
    print_line(name, decibels[name], f"{nats[name]:.4f}", stored[name])
true_nats = np.log((image / image.sum())[tuple(test_counts.astype(int).T)]).mean()
print(f"{'true image':<34}{'':>8}{true_nats:>16.4f}")

assert nats[averaged] > max(nats[cells], nats[gaussians])
assert decibels[averaged] > max(decibels[cells], decibels[gaussians])


def draw(pictures, **options):
    """Images side by side, with their names as titles."""
    figure, axes = plt.subplots(1, len(pictures), figsize=(9, 3.3), layout="constrained")
    for cell, (name, picture) in zip(axes, pictures.items(), strict=True):
        cell.imshow(picture, **options)
        cell.set_axis_off()
        cell.set_title(name)
    return figure


pictures = {"true image": image}
pictures |= {f"{name}: {decibels[name]:.1f} dB": restored[name] for name in (gaussians, averaged)}
figure = draw(pictures, cmap="gray", vmin=0, vmax=255)

# %%
# Codes
# -----
# The codes of all positions in a part of the image, each component in a random colour. Gaussians
# have borders of any direction, cells are boxes.

top, left, side = 60, 190, 128
rows, columns = np.mgrid[top : top + side, left : left + side] + 0.5
places = np.column_stack([rows.ravel(), columns.ravel()])
rng = np.random.RandomState(0)
figure, axes = plt.subplots(1, 2, figsize=(7, 3.7), layout="constrained")
for cell, name in zip(axes, (gaussians, cells), strict=True):
    codes = models[name].transform(places).reshape(side, side)
    palette = rng.uniform(0.15, 1, size=(models[name].n_components_, 3))
    cell.imshow(palette[codes])
    cell.set_axis_off()
    cell.set_title(name)

# %%
# Colour
# ------
# A camera counts the photons of each colour separately, and a model is fitted to each channel. The
# channels share a million counts in proportion to their total intensities. The number of cells is
# that of the grey image.

colours = astronaut().reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
train_counts = sample_counts(colours, 1_000_000, channel_axis=-1, random_state=0)
channel_counts = sample_counts(colours, 100_000, channel_axis=-1, random_state=2)
channels, channel_scores, histograms, n_stored = [], [], [], 0
for channel, (train, test) in enumerate(zip(train_counts, channel_counts, strict=True)):
    truth = colours[..., channel]
    model = learn(train, truth.shape, n_cells, covariance_type="cell", n_averages=n_averages)
    channels.append(model.reconstruct_image(total=truth.sum()))
    channel_scores.append(model.score_samples(test))
    histograms.append(scaled_histogram(train, truth))
    n_stored += model.n_parameters_

colour_histogram, colour_image = np.dstack(histograms), np.dstack(channels)
print_line(
    "histogram of counts", psnr(colour_histogram, colours), "", 100 * colours.size / 2_000_000
)
name = f"3 x {n_averages} x {n_cells} cells"
colour_nats = np.concatenate(channel_scores).mean()
print_line(name, psnr(colour_image, colours), f"{colour_nats:.4f}", 100 * n_stored / 2_000_000)

pictures = {
    "true image": colours,
    f"histogram: {psnr(colour_histogram, colours):.1f} dB": colour_histogram,
    f"{n_averages} tilings per channel: {psnr(colour_image, colours):.1f} dB": colour_image,
}
figure = draw({name: np.clip(picture / 255, 0, 1) for name, picture in pictures.items()})

plt.show()
