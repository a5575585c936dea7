"""Codebooks that k-means finds for the first encodings."""

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor

from skae._nn.nearest import code_sums, nearest
from skae._utils.warning import ignoring

# Largest number of distances that the initialisation by k-means computes: for the seeds, and in all
# iterations.
_SEEDING_DISTANCES, _LLOYD_DISTANCES = 2**25, 2**31
_MOST_ITERATIONS = 50
# Distance by which equal codes are moved apart, and distance below which codes count as equal; both
# in standard deviations of the vectors.
_JITTER, _ALIKE = 0.1, 1e-3


def kmeans_start(
    z: Tensor, weight: Tensor | None, n_codes: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Return a codebook (K, D) by k-means of vectors z (n, D), and the weight of each cell.

    If there are fewer vectors than codes, the vectors are repeated. Equal codes are moved apart, so
    that rounding does not decide between them.
    """
    vectors = z.cpu().double().numpy()
    mass = np.ones(len(vectors)) if weight is None else weight.cpu().double().numpy()
    rng = np.random.RandomState(seed)
    if len(vectors) > n_codes:
        codebook = _cluster(vectors, mass, n_codes, rng)
    else:
        codebook = np.resize(vectors, (n_codes, vectors.shape[1]))
    spread = vectors.std(0)
    if not spread.any():
        spread += np.abs(vectors).max() or 1.0
    places = np.round(codebook / (_ALIKE * spread.max()))
    again = np.ones(n_codes, dtype=bool)
    again[np.unique(places, axis=0, return_index=True)[1]] = False
    codebook[again] += _JITTER * spread * rng.standard_normal((again.sum(), codebook.shape[1]))
    start = torch.from_numpy(codebook).to(z)
    counts, _ = code_sums(z, nearest(z, start), weight, n_codes)
    return start, counts


def _cluster(
    vectors: np.ndarray, mass: np.ndarray, n_codes: int, rng: np.random.RandomState
) -> np.ndarray:
    """Return the centres of k-means, or some of the vectors if k-means would take too long."""
    distances = len(vectors) * n_codes
    if distances > _LLOYD_DISTANCES:
        return vectors[rng.choice(len(vectors), n_codes, replace=False, p=mass / mass.sum())]
    cheap = distances * np.log2(n_codes + 1) <= _SEEDING_DISTANCES
    # Threads of k-means add numbers in any order; with one thread, a seed gives the same result.
    # If there are fewer clusters than codes, some codes stay unused.
    few = ignoring("Number of distinct clusters", ConvergenceWarning)
    with few, threadpool_limits(1, user_api="openmp"):
        model = KMeans(
            n_codes,
            init="k-means++" if cheap else "random",
            n_init=4 if 8 * distances <= _SEEDING_DISTANCES else 1,
            max_iter=int(np.clip(_LLOYD_DISTANCES // distances, 1, _MOST_ITERATIONS)),
            random_state=rng,
        ).fit(vectors, sample_weight=mass)
    centers: np.ndarray = model.cluster_centers_
    return centers
