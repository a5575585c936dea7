"""Integrals of the density of a mixture over the pixels of a grid.

For cells, and for Gaussians with diagonal covariances, the integral is a product of one exact
integral for each axis. A rotated Gaussian is integrated exactly along the last axis, given the
other axes, and by Gauss-Legendre quadrature along the other axes. The number of nodes depends on
its width. Gaussians that are too narrow for quadrature (thin) are integrated in closed form.
"""

from math import log, pi, prod
from sys import maxsize
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from sklearn.utils import gen_batches

from skae._mixture.cells import Cells
from skae._mixture.component_search import Reach, build_tree, find_pairs
from skae._mixture.gaussians import Gaussians, extreme_variances, quadratics, reach_of
from skae._mixture.thin_gaussians import reaches, thin_masses
from skae._utils.inputs import check_count
from skae._utils.memory import advice_on_memory
from skae._utils.threads import in_threads

Array = NDArray[Any]
Indices = NDArray[np.intp]

# A component is left out of a tile if its density is below this value, relative to a uniform image.
_SMALLEST = 1e-13

# Number of quadrature nodes in a pixel: a constant, and a number that is divided by the standard
# deviation; and the largest number of nodes, by the number of axes. Narrower Gaussians are thin.
_NODES, _NODES_PER_WIDTH = 4.0, 4.0
_MOST_NODES = {2: 32, 3: 16}

# Number of nodes that marks thin Gaussians.
_THIN = 0

# Largest number of axes for rotated Gaussians.
_MOST_ROTATED_AXES = 3

_NUMBERS = 2**18


def checked_grid(
    shape: Any, n_places: int, n_features: int, mixture: Gaussians | Cells
) -> tuple[int, ...]:
    """Validate the number of pixels along the first axes, and of bins along all others."""
    grid = tuple(np.atleast_1d(np.asarray(shape, dtype=object)))
    for axis, length in enumerate(grid):
        check_count(f"shape[{axis}]", length)
    if len(grid) not in (n_places, n_features):
        expected = f"{n_features}, one for each feature"
        if n_places < n_features:
            expected = f"{n_places}, one for each axis of the image, or {expected}"
        raise ValueError(f"shape={grid} has {len(grid)} lengths; expected {expected}.")
    kind = "cell" if isinstance(mixture, Cells) else mixture.kind
    if kind in ("full", "tied") and len(grid) > _MOST_ROTATED_AXES:
        raise ValueError(
            f"covariance_type={kind!r} can only be integrated over pixels with at most "
            f"{_MOST_ROTATED_AXES} axes, but shape={grid} has {len(grid)}. Use covariance_type "
            "'diag', 'spherical' or 'cell'."
        )
    return tuple(int(length) for length in grid)


def pixel_masses(mixture: Gaussians | Cells, shape: tuple[int, ...], n_jobs: int | None) -> Array:
    """Integral of the density over every pixel; pixel (i, j) is [i, i+1) x [j, j+1)."""
    advice = f"shape={shape} has {prod(shape):.3g} pixels. Reduce the number of pixels."
    if prod(shape) * 8 > maxsize:
        raise MemoryError(advice)
    with advice_on_memory(advice):
        return _pixel_masses(mixture, shape, n_jobs)


def _pixel_masses(mixture: Gaussians | Cells, shape: tuple[int, ...], n_jobs: int | None) -> Array:
    n_dims = len(shape)
    side = {1: 64, 2: 8, 3: 4}.get(n_dims, 2)
    n_tiles = [-(-length // side) for length in shape]
    tiles = np.zeros((prod(n_tiles), *[side] * n_dims))
    origins = np.stack(np.unravel_index(np.arange(len(tiles)), n_tiles), axis=1) * float(side)
    tree = build_tree(origins, np.minimum(origins + side, shape), 1)
    n_nodes = None
    if isinstance(mixture, Cells):
        peak = mixture.log_densities()
        reach = Reach(mixture.lo, mixture.hi, peak, np.zeros(len(peak)))
        lowest = -np.inf
    else:
        reach = reach_of(mixture, quadratics(mixture).constant)
        lowest = log(_SMALLEST) - np.log(np.array(shape, dtype=float)).sum()
        if n_dims > 1 and mixture.kind in ("full", "tied"):
            narrowest = _narrowest(mixture.full())
            # Numbers of nodes are rounded up to even numbers, and large ones to powers of two, so
            # that there are few different numbers.
            wanted = _NODES + _NODES_PER_WIDTH / narrowest
            few, many = 2 * np.ceil(wanted / 2), 2 ** np.ceil(np.log2(wanted))
            n_nodes = np.where(wanted <= 16, few, many)
            n_nodes = np.where(n_nodes > _MOST_NODES[n_dims], _THIN, n_nodes).astype(np.intp)
    pairs = find_pairs(tree, np.full(len(tree.members), lowest), reach)
    real = ~tree.filler[pairs.block, 0]
    tile, component = tree.members[pairs.block[real], 0], pairs.component[real]
    if n_nodes is not None:
        kept = _reached(mixture, n_nodes == _THIN, origins, tile, component, side)
        tile, component = tile[kept], component[kept]
    order = np.lexsort((tile,) if n_nodes is None else (tile, n_nodes[component]))
    tile, component = tile[order], component[order]

    def work(part: slice) -> tuple[Indices, Array]:
        at, j = tile[part], component[part]
        if n_nodes is None:
            masses = _separable(mixture, origins[at], j, side)
        else:
            assert isinstance(mixture, Gaussians)
            if n_nodes[j[0]] == _THIN:
                masses = thin_masses(mixture.means[j], mixture.full()[j], origins[at], side)
            else:
                masses = _rotated(mixture, origins[at], j, side, int(n_nodes[j[0]]))
        masses *= mixture.weights[j].reshape(-1, *[1] * n_dims)
        first = np.flatnonzero(np.diff(at, prepend=-1))
        return at[first], np.add.reduceat(masses, first, axis=0)

    parts = _parts(None if n_nodes is None else n_nodes[component], len(tile), side, n_dims)
    for at, masses in in_threads(work, parts, n_jobs):
        tiles[at] += masses
    # (t, u, side, side) -> (t, side, u, side), for any number of axes.
    axes = [axis for a in range(n_dims) for axis in (a, n_dims + a)]
    image = tiles.reshape(*n_tiles, *[side] * n_dims).transpose(axes)
    image = image.reshape([n * side for n in n_tiles])
    return np.ascontiguousarray(image[tuple(slice(length) for length in shape)])


def _narrowest(covariances: Array) -> Array:
    """Smallest length over which the integral along the last axis changes along the other axes.

    It changes with the density along the other axes, and with the mean along the last axis, which
    moves by one standard deviation over this length.
    """
    other = covariances[:, :-1, :-1]
    slope = np.linalg.solve(other, covariances[:, :-1, -1:])[:, :, 0]
    variance = covariances[:, -1, -1] - np.einsum("pa,pa->p", slope, covariances[:, :-1, -1])
    widths = np.sqrt(np.maximum(extreme_variances(other)[0], 1e-300))
    steepness = np.sqrt(np.einsum("pa,pa->p", slope, slope))
    with np.errstate(divide="ignore"):
        moves = np.sqrt(np.maximum(variance, 1e-300)) / steepness
    return np.minimum(widths, moves)


def _reached(
    mixture: Gaussians | Cells,
    thin: NDArray[np.bool_],
    origins: Array,
    tile: Indices,
    component: Indices,
    side: int,
) -> NDArray[np.bool_]:
    """Mask of the pairs of tiles and components to keep; most tiles near a thin one are missed."""
    assert isinstance(mixture, Gaussians)
    kept = np.ones(len(tile), dtype=bool)
    if not thin.any():
        return kept
    variances, axes = np.linalg.eigh(mixture.full()[thin])
    place = np.cumsum(thin) - 1
    at = np.flatnonzero(thin[component])
    for some in gen_batches(max(len(at), 1), _NUMBERS // 16):
        j = component[at[some]]
        own = place[j]
        means, corners = mixture.means[j], origins[tile[at[some]]]
        kept[at[some]] = reaches(means, variances[own], axes[own], corners, side)
    return kept


def _parts(n_nodes: Indices | None, n: int, side: int, n_dims: int) -> list[slice]:
    """Slices of pairs with equal numbers of nodes, small enough for the cache."""
    if n_nodes is None:
        bounds, numbers = np.array([0, n]), [side**n_dims]
    else:
        bounds = np.append(np.flatnonzero(np.diff(n_nodes, prepend=-1)), n)
        each = [int(n) or 8 for n in n_nodes[bounds[:-1]]]  # `thin_masses` has its own limits
        numbers = [side**n_dims * n ** (n_dims - 1) for n in each]
    found = []
    for begin, end, number in zip(bounds[:-1], bounds[1:], numbers, strict=True):
        step = max(1, _NUMBERS // number)
        found += [slice(b, min(b + step, end)) for b in range(begin, end, step)]
    return found


def _separable(mixture: Gaussians | Cells, origins: Array, j: Indices, side: int) -> Array:
    """Masses of components on the pixels of tiles, (n_pairs, side, ...), as products over axes."""
    n_dims = origins.shape[1]
    masses = np.ones((len(j), *[1] * n_dims))
    variances = None if isinstance(mixture, Cells) else mixture.variances()
    for a in range(n_dims):
        edges = origins[:, a, None] + np.arange(side + 1)
        if isinstance(mixture, Cells):
            lo, hi = mixture.lo[j, a, None], mixture.hi[j, a, None]
            below = np.clip((edges - lo) / (hi - lo), 0, 1)
        else:
            assert variances is not None
            below = ndtr((edges - mixture.means[j, a, None]) / np.sqrt(variances[j, a, None]))
        along = np.diff(below, axis=1)
        masses = masses * along.reshape(-1, *[side if axis == a else 1 for axis in range(n_dims)])
    return masses


def _rotated(gaussians: Gaussians, origins: Array, j: Indices, side: int, n_nodes: int) -> Array:
    """Masses of rotated Gaussians on the pixels of tiles, (n_pairs, side, ...)."""
    n_first = origins.shape[1] - 1
    covariance = gaussians.full()[j]
    node, node_weight = np.polynomial.legendre.leggauss(n_nodes)
    line = (np.arange(side)[:, None] + (node + 1) / 2).ravel()
    place = np.indices([len(line)] * n_first).reshape(n_first, -1)
    away = origins[:, None, :n_first] + line[place].T - gaussians.means[j, None, :n_first]
    precision = np.linalg.inv(covariance[:, :n_first, :n_first])
    # The mean along the last axis, given the other axes, depends linearly on them with `slope`.
    slope = np.einsum("pab,pb->pa", precision, covariance[:, :n_first, -1])
    deviation = np.sqrt(
        covariance[:, -1, -1] - np.einsum("pa,pa->p", slope, covariance[:, :n_first, -1])
    )
    squared = np.einsum("pma,pab,pmb->pm", away, precision, away, optimize=True)
    log_det = np.linalg.slogdet(precision)[1]
    density = np.exp((log_det[:, None] - squared - n_first * log(2 * pi)) / 2)
    density *= np.prod(np.tile(node_weight / 2, side)[place], axis=0)
    edges = origins[:, -1, None] + np.arange(side + 1) - gaussians.means[j, -1, None]
    centre = np.einsum("pma,pa->pm", away, slope)
    below = ndtr((edges[:, None, :] - centre[:, :, None]) / deviation[:, None, None])
    masses = density[:, :, None] * np.diff(below, axis=2)
    shape = (len(j), *[side, n_nodes] * n_first, side)
    summed: Array = masses.reshape(shape).sum(axis=tuple(2 + 2 * a for a in range(n_first)))
    return summed
