"""Standard deviations of restored intensities, against the true images.

    python benchmarks/intensity_std.py --images bsds300_gray.npz
    python benchmarks/intensity_std.py --images bsds300_gray.npz --models cells gaussians-8

The file holds grey images, one array for each, whose names begin with "train/" or "test/", here the
300 images of the Berkeley segmentation data set (BSDS300). Counts are drawn from the central 128 x
128 pixels of test images that are evenly spaced in the sorted list of names. The method was
developed on training images only.

For each model and number of counts, the columns are means over the images: the percentage of
pixels whose true probability is within one and within two standard deviations of the estimate
(68.3 and 95.4 for a normal distribution), with the lowest and the highest image for the first; the
same percentage without the outermost 16 pixels; the root mean square of error / std; Spearman's
correlation between std and |error|; the percentage within one std if std is the spread of refits to
simulated counts (parametric bootstrap), which does not contain the bias; the root mean square error
relative to the mean probability; and seconds of the fit and of the standard deviations.

Measured figures: docs/benchmarks.md.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from _common import describe_machine
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from skae import CountMixtureAE, counts_to_image, image_to_counts, sample_counts
from skae._mixture.image_masses import image_masses
from skae._mixture.uncertainty import std_of_masses

SIDE, MARGIN = 128, 16
MODELS = {
    "gaussians-8": {"n_components": 8},
    "gaussians-300": {"n_components": 300},
    "gaussians-2500": {"n_components": 2500},
    "cells": {"n_components": "bic", "covariance_type": "cell"},
    "cells-8-averages": {"n_components": "bic", "covariance_type": "cell", "n_averages": 8},
}
COLUMNS = ("1 std", "lowest", "highest", "inside", "2 std", "rms z", "rho", "spread", "error")


def images_of(path, number):
    """The central squares of some test images, with the sum 1."""
    with np.load(path) as file:
        names = sorted(name for name in file if name.startswith("test/"))
        chosen = [names[(2 * i + 1) * len(names) // (2 * number)] for i in range(number)]
        squares = []
        for name in chosen:
            image = file[name].astype(float) + 0.5
            corner = [(length - SIDE) // 2 for length in image.shape]
            square = image[tuple(slice(c, c + SIDE) for c in corner)]
            squares.append(square / square.sum())
    return squares


def refit_of(model):
    """The refits that belong to a fitted CountMixtureAE."""
    instrument, shape = model._instrument, model.image_shape
    return model._refit(lambda mixture: image_masses(mixture, instrument, shape, model.n_jobs))


def measure(truth, params, n_counts, seed):
    """The figures of one fit."""
    counts = sample_counts(truth, n_counts, random_state=seed)
    histogram = counts_to_image(counts, truth.shape)
    pixels, weight = image_to_counts(histogram)
    model = CountMixtureAE(image_shape=truth.shape, random_state=seed, **params)
    start = time.perf_counter()
    masses = model.fit(pixels, sample_weight=weight).intensity()
    middle = time.perf_counter()
    refit = refit_of(model)
    refits = []

    def recorded(weights, rng):
        refits.append(refit(weights, rng))
        return refits[-1]

    std = std_of_masses(histogram, masses, recorded, np.random.RandomState(seed))
    end = time.perf_counter()
    spread = np.sqrt(gaussian_filter(np.var(refits, axis=0, ddof=1), 5))
    error = masses - truth
    z = np.abs(error) / std
    inside = z[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return (
        100 * np.mean(z < 1),
        100 * np.mean(inside < 1),
        100 * np.mean(z < 2),
        np.sqrt(np.mean(z**2)),
        spearmanr(std.ravel(), np.abs(error).ravel())[0],
        100 * np.mean(np.abs(error) < spread),
        np.sqrt(np.mean(error**2)) / truth.mean(),
        middle - start,
        end - middle,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--n-images", type=int, default=6)
    parser.add_argument("--n-counts", type=int, nargs="+", default=[20_000, 200_000, 1_000_000])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(describe_machine())
    images = images_of(options.images, options.n_images)
    print(f"{'model':17s}{'counts':>9}" + "".join(f"{c:>9}" for c in (*COLUMNS, "fit s", "std s")))
    for name in options.models:
        for n_counts in options.n_counts:
            found = np.array(
                [measure(truth, MODELS[name], n_counts, i) for i, truth in enumerate(images)]
            )
            first, *rest = found.mean(axis=0)
            row = [first, found[:, 0].min(), found[:, 0].max(), *rest]
            digits = (1, 1, 1, 1, 1, 2, 2, 1, 3, 1, 1)
            cells = "".join(f"{v:9.{d}f}" for v, d in zip(row, digits, strict=True))
            print(f"{name:17s}{n_counts:9d}{cells}", flush=True)


if __name__ == "__main__":
    main()
