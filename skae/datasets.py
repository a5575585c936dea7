"""Rows to learn from that are made of what users have."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_scalar

from skae._base import private_generator


def image_patches(
    images: Sequence[ArrayLike],
    n_patches: int,
    *,
    patch_size: int = 8,
    random_state: int | np.random.RandomState | None = None,
) -> NDArray[np.float32]:
    """Patches of grey images as rows that have a density, as natural images are benchmarked.

    Patches are cut at random positions, of which every one of every image is as likely as
    any other. Their grey levels 0, ..., 255 become continuous by noise from U(0, 1), and are
    divided by 256; then every patch's own mean is subtracted from it, and its last pixel,
    which follows from the others, is dropped.

    Parameters
    ----------
    images : sequence of array-like of shape (height, width)
        Grey levels from 0 to 255; sizes may differ.
    n_patches : int
        How many patches to cut.
    patch_size : int, default=8
        Their side, in pixels.
    random_state : int, RandomState instance or None, default=None
        Seed of positions and noise. None takes fresh entropy.

    Returns
    -------
    X : ndarray of shape (n_patches, patch_size ** 2 - 1), float32
        Patches, row by row of their pixels.

    Raises
    ------
    ValueError
        If there is no image, one is no grey image of values from 0 to 255 that holds a
        patch, or a number is too small.

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
    check_scalar(n_patches, "n_patches", Integral, min_val=1)
    check_scalar(patch_size, "patch_size", Integral, min_val=2)
    pictures = [_checked(i, image, patch_size) for i, image in enumerate(images)]
    if not pictures:
        raise ValueError("images is empty; expected one grey image or more.")
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
    for part in np.array_split(rows, -(-n_patches // 10_000)):  # noise of all would be float64
        part += rng.random_sample(part.shape)
    rows /= 256
    rows -= rows.mean(axis=1, keepdims=True)
    return np.ascontiguousarray(rows[:, :-1])


def _checked(i: int, image: Any, patch_size: int) -> NDArray[Any]:
    picture = np.asarray(image)
    if picture.ndim != 2 or picture.dtype.kind not in "buif":
        raise ValueError(
            f"images[{i}] has shape {picture.shape} and type {picture.dtype}; expected a grey "
            "image of shape (height, width), of numbers."
        )
    if min(picture.shape) < patch_size:
        raise ValueError(
            f"images[{i}] of shape {picture.shape} holds no patch of patch_size={patch_size}."
        )
    if not (picture.min() >= 0 and picture.max() <= 255):
        raise ValueError(
            f"images[{i}] has values from {picture.min():g} to {picture.max():g}; allowed are "
            "grey levels from 0 to 255."
        )
    return picture
