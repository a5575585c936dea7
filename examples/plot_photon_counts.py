"""
An image as a million photon counts, and back
=============================================

CountMixtureAE learns where light comes from out of the places of photon counts alone; the code
of a count is its component of a mixture. Of 1,000,000 counts of the cameraman, 10,000 Gaussians
restore the image at 23 dB; they store 3% of the numbers that the counts hold. Eight shifted
tilings of 2500 cells, as many as say most about counts held out, store 2% and restore it at
26 dB. The counts on each pixel, as they are, come to 12 dB. A colour image is one sample of
counts for each channel.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from skimage.data import astronaut, camera
from threadpoolctl import threadpool_limits

from skae import CountMixtureAE, counts_to_image, image_to_counts, sample_counts

threadpool_limits(1)  # small matrices: more threads only wait for each other

# %%
# The counts
# ----------
# Counts fall where the image is bright, at random, and a model sees nothing but counts. Two
# more samples are held out: one to choose by, one to report.

image = camera()
shape = image.shape
counts = sample_counts(image, 1_000_000, random_state=0)
counts_to_choose = sample_counts(image, 100_000, random_state=1)
counts_to_report = sample_counts(image, 100_000, random_state=2)

# %%
# Learning
# --------
# A million counts are 220,000 pixels with weights, which take a fraction of the time. Nothing is
# lost for an image of pixels: cells come out the same, and Gaussians lose only the place within
# a pixel.


def learn(counts, shape, n_components, **settings):
    X, sample_weight = image_to_counts(counts_to_image(counts, shape))
    model = CountMixtureAE(n_components, image_shape=shape, random_state=0, **settings)
    return model.fit(X, sample_weight=sample_weight)


# %%
# How many cells?
# ---------------
# Components are Gaussians, 100² of them as in the paper, or cells: boxes that tile the image,
# small where the counts call for it. Counts held out choose how many, in nats per count. PSNR
# chooses nothing: it needs the true image, and who has that needs no model. To choose, one
# tiling will do; it takes half a second.

sizes = (1250, 2500, 5000, 10_000)


def choose_n_cells(counts, counts_to_choose, shape):
    nats = {}
    for size in sizes:
        nats[size] = learn(counts, shape, size, covariance_type="cell").score(counts_to_choose)
    return nats


nats_to_choose = choose_n_cells(counts, counts_to_choose, shape)
n_cells = max(nats_to_choose, key=nats_to_choose.get)
print("How many cells? Nats per count, of counts to choose by")
print("".join(f"{size:>10}" for size in sizes))
print("".join(f"{nats:>10.4f}" for nats in nats_to_choose.values()))
print(f"chosen: {n_cells}\n")

# %%
# Three models
# ------------
# A tiling has edges that the image has not. Eight tilings, shifted against each other, have
# them in different places: their average is a better model, which stores eight times as much.

n_averages = 8
gaussians, cells, averaged = "100² Gaussians", f"{n_cells} cells", f"{n_averages} x {n_cells} cells"
models = {
    gaussians: learn(counts, shape, 100**2),
    cells: learn(counts, shape, n_cells, covariance_type="cell"),
    averaged: learn(counts, shape, n_cells, covariance_type="cell", n_averages=n_averages),
}

# %%
# In colour
# ---------
# A camera counts photons of each colour by itself, and a model is fitted to each. The channels
# share a million counts by their light.

colours = astronaut().reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
colour_counts = sample_counts(colours, 1_000_000, channel_axis=-1, random_state=0)
colour_to_choose = sample_counts(colours, 100_000, channel_axis=-1, random_state=1)
colour_to_report = sample_counts(colours, 100_000, channel_axis=-1, random_state=2)
colour_models = []
for learned, to_choose in zip(colour_counts, colour_to_choose, strict=True):
    grid = colours.shape[:2]
    nats = choose_n_cells(learned, to_choose, grid)
    size = max(nats, key=nats.get)
    colour_models.append(learn(learned, grid, size, covariance_type="cell", n_averages=n_averages))

# %%
# What came back
# --------------
# A reconstruction is scaled to the light of the image. The last column compares the numbers
# that are stored with the two coordinates of each count.


def psnr(restored, truth):
    return 10 * np.log10(255**2 / np.mean((restored - truth) ** 2))


def scaled_histogram(counts, truth):
    return counts_to_image(counts, truth.shape) * (truth.sum() / len(counts))


restored = {name: model.reconstruct_image(total=image.sum()) for name, model in models.items()}
nats = {name: model.score(counts_to_report) for name, model in models.items()}
stored = {name: 100 / model.compression_ratio_ for name, model in models.items()}
histogram = scaled_histogram(counts, image)
decibels = {name: psnr(picture, image) for name, picture in restored.items()}

channels = [colours[..., channel] for channel in range(3)]
colours_restored = np.dstack(
    [
        model.reconstruct_image(total=c.sum())
        for model, c in zip(colour_models, channels, strict=True)
    ]
)
colours_histogram = np.dstack(
    [scaled_histogram(n, c) for n, c in zip(colour_counts, channels, strict=True)]
)
scores = [m.score_samples(X) for m, X in zip(colour_models, colour_to_report, strict=True)]
colour_nats = np.concatenate(scores).mean()
colour_stored = 100 * sum(model.n_parameters_ for model in colour_models) / 2_000_000


def line(name, psnr, nats, stored):
    print(f"{name:<34}{psnr:>8.1f}{nats:>16}{stored:>14.2f}")


print(f"{'':<34}{'PSNR':>8}{'held-out nats':>16}{'% of numbers':>14}")
print(f"{'cameraman, 1,000,000 counts':<34}{'(dB)':>8}{'per count':>16}{'stored':>14}")
line("counts on each pixel", psnr(histogram, image), "", 100 * image.size / counts.size)
for name in models:
    line(name, decibels[name], f"{nats[name]:.4f}", stored[name])
intensity = image / image.sum()
most = np.log(intensity[tuple(counts_to_report.astype(int).T)]).mean()
print(f"{'the image itself':<34}{'':>8}{most:>16.4f}")
print("astronaut, 1,000,000 counts")
numbers_seen = 100 * colours.size / 2_000_000
line("counts on each pixel", psnr(colours_histogram, colours), "", numbers_seen)
sizes_taken = " + ".join(str(model.n_components) for model in colour_models)
name = f"{n_averages} x ({sizes_taken}) cells"
line(name, psnr(colours_restored, colours), f"{colour_nats:.4f}", colour_stored)

assert nats[averaged] > max(nats[cells], nats[gaussians])
assert decibels[averaged] > max(decibels[cells], decibels[gaussians])

# %%
# The picture
# -----------

figure, panels = plt.subplots(3, 4, figsize=(14, 11.4), layout="constrained")
for panel in np.delete(panels.ravel(), 3):
    panel.set(xticks=[], yticks=[])
rng = np.random.RandomState(0)


def show(panel, picture, title):
    if picture.ndim == 3:
        panel.imshow(np.clip(picture / 255, 0, 1))
    else:
        panel.imshow(picture, cmap="gray", vmin=0, vmax=255)
    panel.set_title(title, fontsize=10)


def show_dots(panel, counts, colours, shape, size=0.6):
    panel.set(xlim=(0, shape[1]), ylim=(shape[0], 0), aspect="equal", facecolor="black")
    panel.scatter(counts[:, 1], counts[:, 0], s=size, c=colours, linewidths=0)
    panel.set_title(f"{len(counts):,} of its counts", fontsize=10)


show(panels[0, 0], image, "The image")
show_dots(panels[0, 1], counts[:20_000], "white", shape)
title = f"All 1,000,000, on their pixels: {psnr(histogram, image):.1f} dB"
show(panels[0, 2], histogram, title)

panel = panels[0, 3]
panel.plot(sizes, nats_to_choose.values(), "o-", color="black", fillstyle="none")
panel.axvline(n_cells, color="0.85", zorder=0)
panel.set(xscale="log", xlabel="number of cells")
panel.yaxis.tick_right()
panel.tick_params(axis="y", labelsize=8)
panel.ticklabel_format(axis="y", useOffset=False)
panel.set_box_aspect(1)
panel.set_xticks(sizes, sizes, fontsize=8)
panel.minorticks_off()
panel.set_title("How many cells? Nats per count held out", fontsize=10)

# Codes of a part of the image with edges and sky, in colours drawn at random.
top, left, side = 60, 190, 128
rows, columns = np.mgrid[top : top + side, left : left + side] + 0.5
places = np.column_stack([rows.ravel(), columns.ravel()])
for panel, name in ((panels[1, 0], gaussians), (panels[1, 2], cells)):
    codes = models[name].transform(places).reshape(side, side)
    palette = rng.uniform(0.15, 1, size=(models[name].n_components_, 3))
    panel.imshow(palette[codes])
    panel.set_title(f"Codes in the orange frame:\nwhich of the {name}", fontsize=10)
for panel, name in ((panels[1, 1], gaussians), (panels[1, 3], averaged)):
    title = f"{name}: {decibels[name]:.1f} dB,\n{stored[name]:.1f}% of the numbers"
    show(panel, restored[name], title)
panels[0, 0].add_patch(Rectangle((left, top), side, side, fill=False, color="tab:orange"))

show(panels[2, 0], colours, "An image in colour")
dots = np.concatenate(colour_counts)
channel = np.repeat(np.arange(3), [len(n) for n in colour_counts])
order = rng.permutation(len(dots))[:20_000]
show_dots(panels[2, 1], dots[order], np.eye(3)[channel[order]], colours.shape, size=2)
title = f"All 1,000,000, on their pixels: {psnr(colours_histogram, colours):.1f} dB"
show(panels[2, 2], colours_histogram, title)
title = (
    f"{n_averages} tilings per channel: {psnr(colours_restored, colours):.1f} dB,\n"
    f"{colour_stored:.1f}% of the numbers"
)
show(panels[2, 3], colours_restored, title)

path = Path("figures", "photon_counts.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"\npicture: {path.resolve()}")
