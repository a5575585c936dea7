"""Datasets made from images, and synthetic datasets with a known distribution."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan, log
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr
from sklearn.utils import check_scalar

from skae._utils.inputs import as_numbers, check_count
from skae._utils.types import RandomState
from skae._utils.validation import private_generator

SHIFT_HEIGHT, SHIFT_WIDTH = 4, 8  # size of the images of `make_shift_patterns`


def image_patches(
    images: Sequence[ArrayLike],
    n_patches: int,
    *,
    patch_size: int = 8,
    random_state: RandomState = None,
) -> NDArray[np.float32]:
    """Cut patches from grey images and convert them to rows that have a density.

    This is the usual preprocessing in benchmarks of density models for natural images. Patches are
    cut at random positions. All positions in all images have the same probability. Noise from
    U(0, 1) is added to the grey levels 0, ..., 255, and the sum is divided by 256. Then the mean of
    each patch is subtracted from the patch. Its last pixel is then determined by the others, and is
    left out.

    Parameters
    ----------
    images : sequence of array-like of shape (height, width)
        Grey levels from 0 to 255. The images may have different sizes.
    n_patches : int
        Number of patches to cut.
    patch_size : int, default=8
        Height and width of a patch in pixels.
    random_state : int, RandomState instance or None, default=None
        Seed of the positions and the noise. With None, every call returns other patches.

    Returns
    -------
    X : ndarray of shape (n_patches, patch_size ** 2 - 1), float32
        One patch in each row, with its pixels in row-major order.

    Raises
    ------
    ValueError
        If there is no image, if an image is not two-dimensional, is smaller than a patch or has
        values outside of 0 to 255, or if a number is too small.

    References
    ----------
    D. Zoran and Y. Weiss (2011). From learning models of natural image patches to whole
    image restoration. ICCV. :doi:`10.1109/ICCV.2011.6126278`

    B. Uria, I. Murray and H. Larochelle (2013). RNADE: the real-valued neural
    autoregressive density-estimator. NeurIPS 26. :doi:`10.48550/arXiv.1306.0186`

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from skae.datasets import image_patches
    >>> images = [image.mean(axis=2) for image in load_sample_images().images]
    >>> image_patches(images, 1000, random_state=0).shape
    (1000, 63)
    """
    check_count("n_patches", n_patches)
    check_count("patch_size", patch_size, 2)
    pictures = [_checked(i, image, patch_size) for i, image in enumerate(images)]
    if not pictures:
        raise ValueError("images is empty; expected at least one grey image.")
    rng = private_generator(random_state)
    n_places = np.array([np.prod(np.array(p.shape) - patch_size + 1) for p in pictures])
    last = np.cumsum(n_places)
    place = rng.randint(last[-1], size=n_patches)
    which = np.searchsorted(last, place, side="right")
    place -= (last - n_places)[which]
    patches = np.empty((n_patches, patch_size, patch_size), dtype=np.float32)
    for i, picture in enumerate(pictures):
        mine = which == i
        windows = np.lib.stride_tricks.sliding_window_view(picture, (patch_size, patch_size))
        top, left = np.divmod(place[mine], windows.shape[1])
        patches[mine] = windows[top, left]
    rows = patches.reshape(n_patches, -1)
    for part in np.array_split(rows, -(-n_patches // 10_000)):  # in parts, as noise is float64
        part += rng.random_sample(part.shape)
    rows /= 256
    rows -= rows.mean(axis=1, keepdims=True)
    return np.ascontiguousarray(rows[:, :-1])


def _checked(i: int, image: Any, patch_size: int) -> NDArray[Any]:
    picture = np.asarray(as_numbers(image, f"images[{i}]"))
    if picture.ndim != 2 or picture.dtype.kind not in "buif":
        raise ValueError(
            f"images[{i}] has shape {picture.shape} and dtype {picture.dtype}; expected a grey "
            "image, numbers of shape (height, width)."
        )
    if min(picture.shape) < patch_size:
        raise ValueError(
            f"images[{i}] has shape {picture.shape}; height and width must be at least "
            f"patch_size={patch_size}."
        )
    if not (picture.min() >= 0 and picture.max() <= 255):
        raise ValueError(
            f"images[{i}] has values from {picture.min():g} to {picture.max():g}; allowed are "
            "grey levels from 0 to 255."
        )
    return picture


def make_shift_patterns(
    n_samples: int = 100,
    *,
    p_on: float = 0.2,
    random_state: RandomState = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw images of the shifter problem, with a pattern in two shifted copies.

    Images have 4 rows of 8 pixels. In the first row, every pixel is on with probability `p_on`,
    independently. The last row is the first row, shifted by one pixel with wrap-around, to the
    left or to the right with equal probability. The second row equals the first, and the third row
    equals the last.

    Parameters
    ----------
    n_samples : int, default=100
        Number of images to draw.
    p_on : float, default=0.2
        Probability that a pixel is on, from 0 to 1.
    random_state : int, RandomState instance or None, default=None
        Seed of the pixels and the directions. With None, every call draws other images.

    Returns
    -------
    X : ndarray of shape (n_samples, 32), float32
        Images with pixels 0 and 1, one in each row, with pixels in row-major order.
    direction : ndarray of shape (n_samples,), int64
        Direction of the shift: 0 for left, 1 for right.

    Raises
    ------
    ValueError
        If a number is out of its range.

    See Also
    --------
    shift_patterns_entropy : Compute the exact entropy of the images, in nats.

    Notes
    -----
    If the first row has period 2 (all off, all on, or alternating), both directions give the same
    image. A classifier can therefore predict `direction` correctly for at most the fraction
    1 - P(period 2) / 2 of the images, which is 91.5 % at ``p_on=0.2``.

    References
    ----------
    P. Dayan, G. E. Hinton, R. M. Neal and R. S. Zemel (1995). The Helmholtz machine. Neural
    Computation 7(5), 889-904. :doi:`10.1162/neco.1995.7.5.889`

    Examples
    --------
    >>> from skae.datasets import make_shift_patterns
    >>> X, direction = make_shift_patterns(1, random_state=9)
    >>> print(X.reshape(4, 8).astype(int))
    [[1 0 0 1 1 0 0 0]
     [1 0 0 1 1 0 0 0]
     [0 0 1 1 0 0 0 1]
     [0 0 1 1 0 0 0 1]]
    >>> print(direction)
    [0]
    """
    check_count("n_samples", n_samples)
    p = _checked_p_on(p_on)
    rng = private_generator(random_state)
    first = rng.random_sample((n_samples, SHIFT_WIDTH)) < p
    direction = rng.randint(2, size=n_samples, dtype=np.int64)
    to_left, to_right = np.roll(first, -1, axis=1), np.roll(first, 1, axis=1)
    last = np.where(direction[:, None] == 0, to_left, to_right)
    images = np.stack([first, last], axis=1).repeat(SHIFT_HEIGHT // 2, axis=1)
    return images.reshape(n_samples, -1).astype(np.float32), direction


def shift_patterns_entropy(p_on: float = 0.2) -> float:
    """Return the exact entropy of the images of `make_shift_patterns`, in nats.

    The entropy is a lower bound on the expected negative log-likelihood of such images under any
    model. In bits (divided by log(2)) it is 6.606 at ``p_on=0.2`` and 7.989 at ``p_on=0.3``.

    Parameters
    ----------
    p_on : float, default=0.2
        Probability that a pixel is on, from 0 to 1.

    Returns
    -------
    entropy : float
        Entropy in nats per image. It is 0 for `p_on` of 0 and 1, where all images are equal.

    Raises
    ------
    ValueError
        If `p_on` is out of its range.

    See Also
    --------
    make_shift_patterns : Draw the images.

    References
    ----------
    P. Dayan, G. E. Hinton, R. M. Neal and R. S. Zemel (1995). The Helmholtz machine. Neural
    Computation 7(5), 889-904. :doi:`10.1162/neco.1995.7.5.889`

    Examples
    --------
    >>> from math import log
    >>> from skae.datasets import shift_patterns_entropy
    >>> print(f"{shift_patterns_entropy():.3f} nats")
    4.579 nats
    >>> print(f"{shift_patterns_entropy() / log(2):.3f} bits")
    6.606 bits
    """
    p = _checked_p_on(p_on)
    # H(X) = H(first row) + H(last row | first row). Given the first row, the last row has two
    # values of equal probability. They coincide if the first row has period 2: all off, all on,
    # or one of two alternating rows.
    q = 1 - p
    same = q**SHIFT_WIDTH + p**SHIFT_WIDTH + 2 * (p * q) ** (SHIFT_WIDTH // 2)
    return float(SHIFT_WIDTH * (entr(p) + entr(q)) + log(2) * (1 - same))


def _checked_p_on(p_on: Any) -> float:
    check_scalar(p_on, "p_on", Real, min_val=0, max_val=1)
    if isnan(p_on):
        raise ValueError(f"p_on={p_on} is not allowed; it must be from 0 to 1.")
    return float(p_on)
