"""Vector quantisation: the codebooks, and how they are learned.

References
----------
A. van den Oord, O. Vinyals and K. Kavukcuoglu (2017). Neural discrete representation
learning. NeurIPS 30. :doi:`10.48550/arXiv.1711.00937`

F. Mentzer, D. Minnen, E. Agustsson and M. Tschannen (2024). Finite scalar quantization:
VQ-VAE made simple. ICLR. :doi:`10.48550/arXiv.2309.15505`

Y. Zhu, B. Li, Y. Xin and L. Xu (2025). Addressing representation collapse in vector
quantized models with one linear layer. ICCV. :doi:`10.48550/arXiv.2411.02038`

C. Fifty, R. G. Junkins, D. Duan, A. Iger, J. W. Liu, E. Amid, S. Thrun and C. Ré (2025).
Restructuring vector quantization with the rotation trick. ICLR.
:doi:`10.48550/arXiv.2410.06424`
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skae._nn.kmeans_start import kmeans_start
from skae._nn.nearest import code_sums, nearest
from skae._training.ranks import Part

# Largest ratio of lengths for which gradients are rotated.
_MOST_STRETCH = 100.0
# Codes whose running counts are below this have not been used for long, and stay where they are.
_FADED = 1e-20


# -------------------------------------------------------------------------- formulas


def straight_through(z: Tensor, e: Tensor) -> Tensor:
    """Return the value of e, with the gradient of z (van den Oord et al. 2017)."""
    return z + (e - z).detach()


def rotated(z: Tensor, e: Tensor) -> Tensor:
    """Return the value of e as a constant rotation and scaling of z (Fifty et al. 2025).

    With unit vectors ẑ and ê, r = (ẑ + ê) / |ẑ + ê| and λ = |e| / |z|, the result is λ (z - 2 r rᵀz
    + 2 ê ẑᵀz), so that the gradient keeps its angle to the vector. If z is so close to zero that λ
    would be large, the gradient is copied instead.
    """
    of_z, of_e = (v.detach().norm(dim=-1, keepdim=True) for v in (z, e))
    z_hat, e_hat = z.detach() / of_z.clamp(min=1e-30), e.detach() / of_e.clamp(min=1e-30)
    r = nn.functional.normalize(z_hat + e_hat, dim=-1)
    turned = z - 2 * r * (r * z).sum(-1, keepdim=True) + 2 * e_hat * (z_hat * z).sum(-1, True)
    stretch = (of_e / of_z.clamp(min=1e-30)).clamp(max=_MOST_STRETCH)
    rotation = torch.where(of_e < _MOST_STRETCH * of_z, stretch * turned, z)
    return rotation + (e - rotation).detach()  # opposite vectors have no such rotation


def digits_of(indices: Tensor, levels: Tensor) -> Tensor:
    """Return mixed-radix digits (..., D) of indices (...); the first digit changes fastest."""
    return indices[..., None] // places_of(levels) % levels


def places_of(levels: Tensor) -> Tensor:
    """Return the value of a 1 at each digit: the number of values of the digits before it."""
    # ONNX has no cumulative product.
    return torch.stack([*accumulate(levels[:-1], torch.mul, initial=levels.new_ones(()))])


# --------------------------------------------------------------------------- modules


class Quantized(NamedTuple):
    """Vectors (n, n_components, D) after quantisation."""

    value: Tensor  # input of the decoder: the codes' vectors, with a gradient for z
    indices: Tensor  # (n, n_components, n_quantizers)
    penalties: dict[str, Tensor]  # mean squared distances of every row by name, (n,)


class Quantizer(nn.Module, ABC):
    """Quantisation of vectors in stages; each stage encodes the residual of the earlier ones."""

    def __init__(
        self, n_codes: int, code_dim: int, n_quantizers: int, rotation: bool = False
    ) -> None:
        super().__init__()
        self.n_codes, self.code_dim, self.n_quantizers = n_codes, code_dim, n_quantizers
        self.rotation = rotation

    @abstractmethod
    def codebook(self, stage: int) -> Tensor:
        """Return the vectors (K, D) of a stage."""

    def vectors_of(self, indices: Tensor, stage: int) -> Tensor:
        """Return the vectors (..., D) of a stage's indices (...)."""
        return self.codebook(stage)[indices]

    def bound(self, z: Tensor) -> Tensor:
        """Return the vectors to be quantised, given the encoder's output."""
        return z

    def find(self, left: Tensor, stage: int) -> Tensor:
        """Return the indices of a stage's nearest codes for the residuals (..., D)."""
        rows = left.reshape(-1, self.code_dim)
        return nearest(rows, self.codebook(stage)).view(left.shape[:-1])

    def passed(self, z: Tensor, e: Tensor) -> Tensor:
        """Return the value of e, with a gradient for z."""
        return rotated(z, e) if self.rotation else straight_through(z, e)

    def penalties(self, left: list[Tensor], codes: list[Tensor]) -> dict[str, Tensor]:
        """Return mean squared distances of every row between the residuals and their codes."""
        return {}

    def look_up(self, indices: Tensor) -> Tensor:
        """Return vectors (..., D) of indices (..., n_quantizers): the sum of all stages."""
        codes = [self.vectors_of(indices[..., q], q) for q in range(self.n_quantizers)]
        return sum(codes[1:], codes[0])

    def forward(self, z: Tensor) -> Quantized:
        """Quantise vectors (n, n_components, D)."""
        z = self.bound(z)
        left, codes, indices = [], [], []
        rest = z
        for stage in range(self.n_quantizers):
            left.append(rest)
            indices.append(self.find(rest.detach(), stage))
            codes.append(self.vectors_of(indices[-1], stage))
            rest = rest - codes[-1].detach()
        value = sum(codes[1:], codes[0]).detach()
        if z.requires_grad:
            value = self.passed(z, value)
        return Quantized(value, torch.stack(indices, -1), self.penalties(left, codes))


class VectorQuantizer(Quantizer):
    """A codebook that is learned by running means or by a loss.

    Parameters
    ----------
    by_loss : bool
        Whether the vectors are parameters with a loss. Otherwise each is the running mean of the
        encodings that are assigned to it, N <- γN + (1 - γ)n, m <- γm + (1 - γ)Σz, e = m / N.
    rotation : bool
        Whether gradients are rotated from a code to its encoding.
    """

    vectors: Tensor
    counts: Tensor
    sums: Tensor
    per_batch: Tensor

    def __init__(
        self,
        n_codes: int,
        code_dim: int,
        n_quantizers: int,
        *,
        by_loss: bool,
        rotation: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__(n_codes, code_dim, n_quantizers, rotation)
        self.by_loss = by_loss
        shape = (n_quantizers, n_codes, code_dim)
        start = (2 * torch.rand(shape, generator=generator) - 1) / n_codes
        if by_loss:
            self.vectors = nn.Parameter(start)
        else:
            self.register_buffer("vectors", start)
        # For a batch: the weight of each code, and the sums of its encodings.
        self.register_buffer("counts", torch.zeros(shape[:2]))
        self.register_buffer("sums", torch.zeros(shape if not by_loss else 0))
        # Total weight of the encodings of a batch.
        self.register_buffer("per_batch", torch.zeros(()))

    def codebook(self, stage: int) -> Tensor:
        return self.vectors[stage]

    def penalties(self, left: list[Tensor], codes: list[Tensor]) -> dict[str, Tensor]:
        found = {"commitment": _distances(left, [code.detach() for code in codes])}
        if self.by_loss:
            found["codebook"] = _distances([z.detach() for z in left], codes)
        return found

    @torch.no_grad()
    def start(self, z: Tensor, weight: Tensor | None, per_batch: float, seed: int) -> None:
        """Initialise the codebook by k-means of vectors (n, D); `per_batch` is a batch's weight."""
        for stage in range(self.n_quantizers):
            vectors, counts = kmeans_start(z, weight, self.n_codes, seed + stage)
            self.vectors[stage] = vectors
            self.counts[stage] = counts * (per_batch / counts.sum())
            z = z - vectors[nearest(z, vectors)]
        self._count_on(per_batch)

    @torch.no_grad()
    def start_even(self, per_batch: float) -> None:
        """Keep the randomly drawn codebook, with equal counts for all codes."""
        self.counts.fill_(per_batch / self.n_codes)
        self._count_on(per_batch)

    def _count_on(self, per_batch: float) -> None:
        self.per_batch.fill_(per_batch)
        if not self.by_loss:
            self.sums.copy_(self.vectors * self.counts[..., None])

    @torch.no_grad()
    def follow(
        self,
        z: Tensor,
        indices: Tensor,
        weight: Tensor | None,
        *,
        decay: float,
        threshold: float,
        chances: Tensor | None,
        part: Part | None = None,
    ) -> None:
        """Update the running means with encodings z (n, D) and their indices (n, n_quantizers).

        With equal use, all codes have the same weight. A code with less than `threshold` times this
        weight is set to another encoding, which the uniform numbers `chances` (n_quantizers, n)
        choose by weight. If other processes have further encodings, `chances` are those of all.
        """
        total = torch.as_tensor(float(len(z)), device=z.device) if weight is None else weight.sum()
        total = total if part is None else part.sum(total)
        self.per_batch.lerp_(total, 1 - decay)
        for stage in range(self.n_quantizers):
            vectors, counts = self.vectors[stage], self.counts[stage]
            now, sums = code_sums(z, indices[:, stage], weight, self.n_codes)
            if part is not None:
                now, sums = part.sums(now, sums)
            counts.lerp_(now, 1 - decay)
            left = z
            if stage + 1 < self.n_quantizers:
                left = z - vectors[indices[:, stage]]
            if not self.by_loss:
                self.sums[stage].lerp_(sums, 1 - decay)
                used = (counts > _FADED * self.per_batch)[:, None]
                means = self.sums[stage] / counts.clamp(min=1e-38)[:, None]
                vectors.copy_(torch.where(used, means, vectors))
            if chances is not None:
                self._restart(stage, z, weight, threshold, chances[stage], part)
            z = left

    def _restart(
        self,
        stage: int,
        z: Tensor,
        weight: Tensor | None,
        threshold: float,
        chances: Tensor,
        part: Part | None,
    ) -> None:
        alike = self.per_batch / self.n_codes
        vectors, counts = self.vectors[stage], self.counts[stage]
        dead = counts < threshold * alike
        # On other devices, the check takes longer than the update.
        if dead.device.type == "cpu" and not dead.any():
            return
        if part is not None:
            z, weight = part.gather(z), None if weight is None else part.gather(weight)
        # The first of exponential times with rates w is that of i with probability w_i / sum w.
        w = z.new_ones(len(z)) if weight is None else weight
        times = torch.where(w > 0, -chances.clamp(min=1e-30).log() / w, torch.inf)
        arrival = times.argsort()
        place = dead.cumsum(0) - 1
        anew = dead & (place < (w > 0).sum())
        live = z[arrival[place.clamp(0, len(z) - 1)]]
        vectors.copy_(torch.where(anew[:, None], live, vectors))
        counts.copy_(torch.where(anew, alike, counts))
        if not self.by_loss:
            sums = self.sums[stage]
            sums.copy_(torch.where(anew[:, None], alike * live, sums))


class LinearQuantizer(Quantizer):
    """SimVQ: a fixed codebook C and a learned linear map W; e = C W."""

    frozen: Tensor

    def __init__(
        self,
        n_codes: int,
        code_dim: int,
        n_quantizers: int,
        *,
        rotation: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__(n_codes, code_dim, n_quantizers, rotation)
        shape = (n_quantizers, n_codes, code_dim)
        self.register_buffer("frozen", torch.randn(shape, generator=generator))
        self.maps = nn.Parameter(torch.eye(code_dim).repeat(n_quantizers, 1, 1))

    def codebook(self, stage: int) -> Tensor:
        return self.frozen[stage] @ self.maps[stage]

    def penalties(self, left: list[Tensor], codes: list[Tensor]) -> dict[str, Tensor]:
        return {
            "commitment": _distances(left, [code.detach() for code in codes]),
            "codebook": _distances([z.detach() for z in left], codes),
        }

    @torch.no_grad()
    def start(self, z: Tensor, weight: Tensor | None) -> None:
        """Set W so that codes have the second moments of the vectors (n, D): W'W = E[zz']."""
        for stage in range(self.n_quantizers):
            wide = z.cpu().double()
            w = wide.new_ones(len(z)) if weight is None else weight.cpu().double()
            moments = (wide.T * (w / w.sum())) @ wide
            floor = 1e-4 * moments.diagonal().mean() + 1e-12
            root = torch.linalg.cholesky(moments + floor * torch.eye(self.code_dim)).T
            self.maps[stage] = root.to(z)
            z = z - self.codebook(stage)[nearest(z, self.codebook(stage))]


class ScalarQuantizer(Quantizer):
    """FSQ: each dimension, in (-1, 1) by tanh, has a number of cells of equal width.

    A code consists of the centres of cells. The positions of the cells are the digits of its index
    in mixed radix. Each later stage divides the cells of the stage before it in the same way.
    """

    levels: Tensor

    def __init__(self, levels: Sequence[int], n_quantizers: int) -> None:
        super().__init__(prod(levels), len(levels), n_quantizers)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)

    def bound(self, z: Tensor) -> Tensor:
        return z.tanh()

    def codebook(self, stage: int) -> Tensor:
        return self.vectors_of(torch.arange(self.n_codes, device=self.levels.device), stage)

    def vectors_of(self, indices: Tensor, stage: int) -> Tensor:
        """Compute vectors from the digits, because the codebook of many levels is large."""
        digits = digits_of(indices, self.levels)
        return ((2 * digits + 1) / self.levels - 1) / self.levels**stage

    def find(self, left: Tensor, stage: int) -> Tensor:
        """Compute indices from the digits of the cells, without distances."""
        digits = ((left * self.levels**stage + 1) / 2 * self.levels).floor().long()
        digits = torch.minimum(digits.clamp(min=0), self.levels - 1)
        return (digits * places_of(self.levels)).sum(-1)


def _distances(left: list[Tensor], codes: list[Tensor]) -> Tensor:
    """Return the mean over positions and dimensions, summed over stages, (n,)."""
    parts = [(z - e).square().flatten(1).mean(1) for z, e in zip(left, codes, strict=True)]
    return sum(parts[1:], parts[0])
