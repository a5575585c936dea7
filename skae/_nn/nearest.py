"""The nearest vectors of a codebook, and sums over the vectors of each code."""

import numpy as np
import torch
from torch import Tensor

from skae._training.contexts import is_exporting, is_stacking

# Number of distances in memory at once: 4 MB, which fit into the cache of a core.
_DISTANCES = 2**20


@torch.no_grad()
def nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """Return the index of the nearest vector of `codebook` (K, D) for every row of z (n, D).

    |z - e|² = |z|² + (e, |e|²)·(-2z, 1), whose first term does not depend on e. The second term is
    one matrix product, which is computed in pieces.
    """
    # Vectors are centred, because squares far from zero lose precision. The median is used because
    # a single distant code does not change it.
    if is_exporting():  # ONNX can sort, but has no median
        center = codebook.sort(0).values[(len(codebook) - 1) // 2]
    else:
        center = codebook.median(0).values
    e, z = codebook - center, z - center
    e = torch.cat([e, e.square().sum(1, keepdim=True)], 1).T.contiguous()
    z = torch.cat([-2 * z, torch.ones_like(z[:, :1])], 1)
    if is_exporting():  # the number of rows is not known
        return (z @ e).argmin(1)
    rows = max(1, _DISTANCES // len(codebook))
    if z.device.type != "cpu" or torch.compiler.is_compiling() or is_stacking():
        return torch.cat([(part @ e).argmin(1) for part in z.split(rows)])
    # NumPy's argmin is vectorised, and torch's is not. Both arrays are allocated once: small
    # results between large arrays that are freed would fragment the heap and let it grow.
    found = np.empty(len(z), dtype=np.int64)
    distances = z.new_empty(min(rows, len(z)), len(codebook))
    for start in range(0, len(z), rows):
        part = z[start : start + rows]
        of_part = torch.mm(part, e, out=distances[: len(part)])
        np.argmin(of_part.numpy(), axis=1, out=found[start : start + rows])
    return torch.from_numpy(found)


def code_sums(
    z: Tensor, indices: Tensor, weight: Tensor | None, n_codes: int
) -> tuple[Tensor, Tensor]:
    """Return the weight of each code among the vectors z (n, D), and their weighted sums."""
    counts = torch.bincount(indices, weight, n_codes).to(z.dtype)
    weighted = z if weight is None else z * weight[:, None]
    return counts, z.new_zeros(n_codes, z.shape[1]).index_add_(0, indices, weighted)
