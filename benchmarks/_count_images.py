"""Restorers of images from counts, the choice of their settings, and measures of the outcome.

A restorer takes an image of counts and returns a density: the intensity, normalised to sum 1.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, zoom
from skimage.metrics import structural_similarity
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, richardson_lucy
from sklearn.exceptions import ConvergenceWarning

from skae import CountMixtureAE, counts_to_image, image_to_counts

Restorer = Callable[[np.ndarray], np.ndarray]
# The settings of a method in an order along which the held-out nats rise and fall, by their names.
Line = dict[str, Restorer]


# -------------------------------------------------------------------------- measures


def as_density(image: np.ndarray) -> np.ndarray:
    """Normalised to sum 1; no pixel is darker than a thousandth of the mean."""
    image = np.maximum(image, 1e-3 * image.mean())
    return image / image.sum()


def nats(density: np.ndarray, counts: np.ndarray) -> float:
    """Mean log density of the counts of an image, in nats per count."""
    seen = counts > 0
    return float((np.log(density[seen]) * counts[seen]).sum() / counts.sum())


def divergence(truth: np.ndarray, density: np.ndarray) -> float:
    """KL divergence of a density from the true one, in nats per count."""
    lit = truth > 0
    return float((truth[lit] * np.log(truth[lit] / density[lit])).sum())


class Quality(NamedTuple):
    psnr: float  # dB, of the peak 255
    ssim: float
    kl: float  # from the true density, nats per count
    nats: float  # mean log density of new counts


def quality(density: np.ndarray, image: np.ndarray, new_counts: np.ndarray) -> Quality:
    """How well a density restores an image with values from 0 to 255."""
    restored = density * image.sum()
    return Quality(
        psnr=float(10 * np.log10(255**2 / np.mean((restored - image) ** 2))),
        ssim=float(structural_similarity(image, restored, data_range=255)),
        kl=divergence(image / image.sum(), density),
        nats=nats(density, new_counts),
    )


# ---------------------------------------------------------------------------- choice


class Choice(NamedTuple):
    name: str
    restore: Restorer
    seconds: float


def split(counts: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Images of nine tenths of the counts, which are in random order, and of the others."""
    n_held_out = len(counts) // 10
    return counts_to_image(counts[n_held_out:], shape), counts_to_image(counts[:n_held_out], shape)


def choose(
    lines: Sequence[Line], train: np.ndarray, held_out: np.ndarray, *, start: int = 0
) -> Choice:
    """The setting of the most held-out nats.

    Each line is searched from the best place of the line before, in both directions, as long as
    the nats rise. Lines follow as long as they are better than the line before.
    """
    began = time.perf_counter()
    best_score, best, best_name = -np.inf, None, ""
    for line in lines:
        names = list(line)
        if len(lines) == len(names) == 1:  # nothing to choose
            return Choice(names[0], line[names[0]], 0.0)
        found: dict[int, float] = {}

        def score(i: int, found=found, line=line, names=names) -> float:
            if not 0 <= i < len(names):
                return -np.inf
            if i not in found:
                found[i] = nats(line[names[i]](train), held_out)
            return found[i]

        place = min(start, len(names) - 1)
        while (after := max((place - 1, place, place + 1), key=score)) != place:
            place = after
        start = place
        if found[place] <= best_score:
            break
        best_score, best, best_name = found[place], line[names[place]], names[place]
    assert best is not None
    return Choice(best_name, best, time.perf_counter() - began)


# -------------------------------------------------------------------------- restorers


def by_histogram(counts: np.ndarray) -> np.ndarray:
    return as_density(counts)


def by_kernels(width: float) -> Restorer:
    """Gaussians of one width, in pixels; edges reflect them."""
    return lambda counts: as_density(gaussian_filter(counts * 1.0, width))


def by_adaptive_kernels(width: float, pilot: float) -> Restorer:
    """Gaussians whose widths are those of Abramson (1982), doi:10.1214/aos/1176345986.

    The width at a count is proportional to the square root of 1 / density. The density is a pilot
    estimate with kernels of one width, and `width` is the geometric mean over the counts. Each
    count is shared by two of nine widths, so that its variance is right.
    """
    ladder = width * 2 ** np.arange(-2, 2.25, 0.5)

    def restore(counts: np.ndarray) -> np.ndarray:
        density = as_density(gaussian_filter(counts * 1.0, pilot))
        mean = (counts * np.log(density)).sum() / counts.sum()
        variances = width**2 * np.exp(mean) / density
        place = np.interp(variances, ladder**2, np.arange(len(ladder)))
        restored = np.zeros(counts.shape)
        for k, each in enumerate(ladder):
            share = counts * np.clip(1 - np.abs(place - k), 0, None)
            if share.any():
                restored += gaussian_filter(share, each)
        return as_density(restored)

    return restore


def by_anscombe(denoise: Restorer, binning: int = 1) -> Restorer:
    """A method for Gaussian noise of variance 1, between Anscombe's transform and its inverse.

    With `binning`, counts are summed over squares of pixels before, and the result is interpolated
    by cubic splines.
    """

    def restore(counts: np.ndarray) -> np.ndarray:
        stable = 2 * np.sqrt(summed(counts, binning) + 3 / 8)
        y = np.maximum(denoise(stable), 2 * np.sqrt(3 / 8))
        # The closed form of the exact unbiased inverse (Mäkitalo and Foi 2011).
        inverse = (
            y**2 / 4 - 1 / 8 + np.sqrt(1.5) / 4 / y - 11 / 8 / y**2 + 5 * np.sqrt(1.5) / 8 / y**3
        )
        if binning > 1:
            inverse = zoom(inverse, binning, order=3, mode="reflect", grid_mode=True)
        return as_density(inverse[: counts.shape[0], : counts.shape[1]])

    return restore


def summed(counts: np.ndarray, binning: int) -> np.ndarray:
    """Sums over squares of pixels. Squares that are incomplete at an edge are reflected there."""
    counts = np.pad(counts, [(0, -length % binning) for length in counts.shape], mode="symmetric")
    rows, columns = np.array(counts.shape) // binning
    return counts.reshape(rows, binning, columns, binning).sum(axis=(1, 3))


def by_tv(weight: float, binning: int = 1) -> Restorer:
    # The default `eps` stops long before convergence, which costs half a dB.
    return by_anscombe(
        lambda y: denoise_tv_chambolle(y, weight=weight, eps=1e-5, max_num_iter=500), binning
    )


def by_nl_means(strength: float, binning: int = 1) -> Restorer:
    return by_anscombe(
        lambda y: denoise_nl_means(
            y, h=strength, sigma=1.0, patch_size=5, patch_distance=9, fast_mode=True
        ),
        binning,
    )


def by_bm3d(sigma: float, binning: int = 1) -> Restorer:
    def denoise(y: np.ndarray) -> np.ndarray:
        from bm3d import bm3d

        return bm3d(y, sigma_psd=sigma)

    return by_anscombe(denoise, binning)


def by_richardson_lucy(width: float, n_iterations: int, sieve: float = 0.0) -> Restorer:
    """Deconvolution with a Gaussian of this standard deviation, of the image reflected at edges.

    With a sieve, restored images are those that a Gaussian of this standard deviation smooths.
    """
    blur = np.hypot(width, sieve)
    radius = int(np.ceil(4 * blur))
    line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / blur) ** 2)
    psf = np.outer(line, line) / line.sum() ** 2

    def restore(counts: np.ndarray) -> np.ndarray:
        padded = np.pad(counts * 1.0, 2 * radius, mode="symmetric")
        sharp = richardson_lucy(padded, psf, num_iter=n_iterations, clip=False)
        smooth = gaussian_filter(sharp, sieve) if sieve else sharp
        return as_density(smooth[2 * radius : -2 * radius, 2 * radius : -2 * radius])

    return restore


def by_mixture(n_components: int | None = None, **params: object) -> Restorer:
    """CountMixtureAE, fitted to pixels. The attribute `model` is that of the last call."""

    def restore(counts: np.ndarray) -> np.ndarray:
        given = {"image_shape": counts.shape, "n_jobs": 2, "random_state": 0, **params}
        pixels, weight = image_to_counts(counts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = CountMixtureAE(n_components, **given).fit(pixels, sample_weight=weight)
        restore.model = model
        return model.reconstruct_image(total=1.0)

    return restore


# ------------------------------------------------------------------- lines of settings


def geometric(lowest: float, highest: float, factor: float) -> list[float]:
    """Numbers of three digits from the lowest to the highest, with a constant ratio."""
    steps = int(np.log(highest / lowest) / np.log(factor) + 1e-9)
    return [float(f"{lowest * factor**i:.3g}") for i in range(steps + 1)]


def lines_of_kernels() -> list[Line]:
    return [{f"width {w:g}": by_kernels(w) for w in geometric(0.4, 40, 2**0.25)}]


def lines_of_adaptive_kernels() -> list[Line]:
    return [
        {
            f"width {w:g}, pilot {r * w:.3g}": by_adaptive_kernels(w, r * w)
            for w in geometric(0.4, 40, 2**0.25)
        }
        for r in (1.0, 0.7, 1.4)
    ]


def lines_of_anscombe(
    how: Callable[[float, int], Restorer], parameter: str, values: Sequence[float]
) -> list[Line]:
    """A line for each binning, from the coarsest, which takes the least time."""
    return [
        {f"{b} x {b}, {parameter} {v:g}": how(v, b) for v in values} for b in (32, 16, 8, 4, 2, 1)
    ]
