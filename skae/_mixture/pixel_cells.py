"""Cells that are the pixels of an image, in the order of their indices."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from skae._mixture.cells import Cells

Array = NDArray[Any]
Indices = NDArray[np.intp]


class PixelCells(Cells):
    """A uniform density on each pixel of an image, in the order of its flat index."""

    __slots__ = ()

    @classmethod
    def of_image(cls, density: Array) -> "PixelCells":
        """The cells of an image whose values are the probabilities of its pixels."""
        corner = np.indices(density.shape).reshape(density.ndim, -1).T.astype(np.float64)
        return cls(density.ravel(), corner, corner + 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the image."""
        return tuple(int(length) for length in self.hi[-1])

    def image(self) -> Array:
        """The probability of each pixel."""
        return self.weights.reshape(self.shape)


class RowsOnPixels:
    """Rows with the pixels that contain them; with the methods of `RowsInCells`."""

    def __init__(self, X: Array, cells: PixelCells) -> None:
        shape = np.array(cells.shape)
        self._inside = ((X >= 0) & (shape >= X)).all(axis=1)
        # A place at the far edge of the image is on the last pixel.
        pixel = np.clip(np.floor(X), 0, shape - 1).astype(np.intp)
        self._pixel: Indices = np.ravel_multi_index(tuple(pixel.T), cells.shape)

    def log_density(self, cells: Cells) -> Array:
        """Log density of every row; -inf outside of the image."""
        with np.errstate(divide="ignore"):
            return np.where(self._inside, np.log(cells.weights[self._pixel]), -np.inf)

    def best(self, cells: Cells) -> Indices:
        """The pixel of every row; the nearest one for rows outside."""
        return self._pixel

    def responsibilities(self, cells: Cells) -> sparse.csr_array:
        """One for the pixel of every row."""
        n = len(self._pixel)
        entries = (np.arange(n), self._pixel)
        return sparse.coo_array((np.ones(n), entries), shape=(n, len(cells.weights))).tocsr()
