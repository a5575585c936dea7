"""Codebooks against brute force, and their recursions, gradients and starts against NumPy."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, make_blobs
from sklearn.decomposition import PCA

import skae._nn.nearest as nearest_module
from helpers import generator, normal
from skae._nn.quantizers import (
    LinearQuantizer,
    ScalarQuantizer,
    VectorQuantizer,
    code_sums,
    digits_of,
    kmeans_start,
    nearest,
    rotated,
    straight_through,
)

LEVELS = [(3,), (4,), (3, 5), (4, 6), (2, 3, 4), (5, 1, 2)]


def squares(z, codebook):
    """Squared distances (n, K), in float64."""
    return cdist(np.asarray(z, dtype=float), np.asarray(codebook, dtype=float), "sqeuclidean")


def codebook_of(n_codes=6, code_dim=3, n_quantizers=1, *, by_loss=False, rotation=False, seed=0):
    """With codes of about the size of standard normal vectors, used alike in batches of 20."""
    quantizer = VectorQuantizer(
        n_codes, code_dim, n_quantizers, by_loss=by_loss, rotation=rotation, generator=generator()
    )
    with torch.no_grad():
        quantizer.vectors.copy_(normal(n_quantizers, n_codes, code_dim, seed=seed))
    quantizer.start_even(20.0)
    return quantizer


def stage_indices(quantizer, z):
    """(n, n_quantizers), of vectors (n, D)."""
    return quantizer(z[:, None]).indices[:, 0]


# ------------------------------------------------------------------------ the nearest


@pytest.mark.parametrize("n_codes", [1, 2, 7, 100])
@pytest.mark.parametrize("code_dim", [1, 4, 32])
@pytest.mark.parametrize("distances", [1, 250, 2**20])
def test_nearest_is_that_of_all_distances(n_codes, code_dim, distances, monkeypatch):
    """However many rows are compared at once."""
    monkeypatch.setattr(nearest_module, "_DISTANCES", distances)
    z, codebook = normal(301, code_dim).double(), normal(n_codes, code_dim, seed=1).double()
    found = nearest(z, codebook)
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found, squares(z, codebook).argmin(1))


@pytest.mark.parametrize(("origin", "spread"), [(0.0, 1.0), (1e3, 0.1), (-1e4, 1.0)])
def test_nearest_is_found_far_from_the_origin(origin, spread):
    """In float32, where the squares of such vectors have no digits for their distances."""
    z, codebook = (origin + spread * normal(n, 8, seed=n) for n in (2000, 64))
    distances = squares(z, codebook)
    found = distances[np.arange(2000), nearest(z, codebook)]
    assert (found - distances.min(1)).max() < 1e-5 * spread**2


def test_a_code_is_nearest_to_itself():
    """Of many codes."""
    codebook = normal(500, 8)
    assert torch.equal(nearest(codebook, codebook), torch.arange(500))


# ------------------------------------------------------------------- passing gradients


def test_straight_through_has_the_value_of_the_code_and_the_gradient_of_the_vector():
    """Of which the code has none."""
    z, e = (normal(5, 3, seed=s).double().requires_grad_() for s in (0, 1))
    out = straight_through(z, e)
    torch.testing.assert_close(out, e)
    cotangent = normal(5, 3, seed=2).double()
    of_z, of_e = torch.autograd.grad(out, (z, e), cotangent, allow_unused=True)
    assert torch.equal(of_z, cotangent)
    assert of_e is None or not of_e.any()


def rotation_between(z, e):
    """The rotation in the plane of two vectors that takes one's direction to the other's."""
    u, target = z / np.linalg.norm(z), e / np.linalg.norm(e)
    v = target - (target @ u) * u
    v /= np.linalg.norm(v)
    cosine, sine = target @ u, target @ v
    in_plane = (cosine - 1) * (np.outer(u, u) + np.outer(v, v))
    return np.eye(len(z)) + in_plane + sine * (np.outer(v, u) - np.outer(u, v))


@pytest.mark.parametrize("code_dim", [2, 3, 7])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_rotated_has_the_gradient_of_a_scaled_rotation(code_dim, scale):
    """The value is the code; the Jacobian is |e| / |z| times the rotation in their plane."""
    z, e = normal(code_dim).double(), scale * normal(code_dim, seed=1).double()
    torch.testing.assert_close(rotated(z, e), e, rtol=1e-12, atol=1e-14)
    found = torch.autograd.functional.jacobian(lambda z: rotated(z, e), z).numpy()
    factor = e.norm().item() / z.norm().item()
    turn = rotation_between(z.numpy(), e.numpy())
    np.testing.assert_allclose(turn @ turn.T, np.eye(code_dim), atol=1e-12)
    np.testing.assert_allclose(found, factor * turn, atol=1e-12 * factor)


def test_rotated_gradients_keep_their_angle_to_the_vector():
    """That of every row of an array is the cotangent's to the code."""
    z, e = normal(4, 5, 3).double().requires_grad_(), normal(4, 5, 3, seed=1).double()
    cotangent = normal(4, 5, 3, seed=2).double()
    (gradient,) = torch.autograd.grad(rotated(z, e), z, cotangent)
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(gradient, z, dim=-1), cosine(cotangent, e, dim=-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", ["zero vector", "zero code", "both zero", "opposite", "equal"])
def test_rotated_is_finite_where_there_is_no_rotation(case, dtype):
    """The value is still the code; equal vectors have the identity."""
    v = normal(3, dtype=dtype)
    zero = torch.zeros_like(v)
    z, e = {
        "zero vector": (zero, v),
        "zero code": (v, zero),
        "both zero": (zero, zero),
        "opposite": (v, -2 * v),
        "equal": (v, v),
    }[case]
    torch.testing.assert_close(rotated(z, e), e)
    found = torch.autograd.functional.jacobian(lambda z: rotated(z, e), z)
    assert found.isfinite().all()
    if case in ("equal", "both zero"):
        torch.testing.assert_close(found, torch.eye(3, dtype=dtype), atol=1e-6, rtol=0)


# ------------------------------------------------------------------------ sums, digits


def test_sums_of_codes_are_numpys():
    """With weights and without; codes that nothing has are zero."""
    rng = np.random.default_rng(0)
    z, indices, weight = rng.normal(size=(50, 3)), rng.integers(0, 5, 50), rng.uniform(size=50)
    for w in (None, weight):
        by = np.ones(50) if w is None else w
        masks = [indices == k for k in range(7)]
        given = None if w is None else torch.tensor(w)
        counts, sums = code_sums(torch.tensor(z), torch.tensor(indices), given, 7)
        np.testing.assert_allclose(counts, [by[m].sum() for m in masks])
        np.testing.assert_allclose(sums, [(z[m] * by[m, None]).sum(0) for m in masks])


def test_weights_are_repeated_vectors():
    """Integer weights, zero among them, in the sums of codes."""
    z, indices = normal(40, 3).double(), torch.randint(5, (40,), generator=generator())
    times = torch.randint(4, (40,), generator=generator(1))
    weighted = code_sums(z, indices, times.double(), 5)
    repeated = code_sums(z.repeat_interleave(times, 0), indices.repeat_interleave(times), None, 5)
    torch.testing.assert_close(weighted, repeated)


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_digits_are_unravelled_indices(levels):
    """The first digit changes fastest; indices may have any shape."""
    every = np.arange(np.prod(levels))
    expected = np.stack(np.unravel_index(every, levels, order="F"), axis=-1)
    np.testing.assert_array_equal(digits_of(torch.tensor(every), torch.tensor(levels)), expected)
    shaped = torch.tensor(every).view(1, -1, 1)
    found = digits_of(shaped, torch.tensor(levels))
    np.testing.assert_array_equal(found[0, :, 0], expected)


# -------------------------------------------------------------------- starts by k-means


def blobs():
    return make_blobs(800, 5, centers=12, cluster_std=1.5, random_state=0)[0]


def digit_codes():
    return PCA(8, random_state=0).fit_transform(load_digits().data[:1000])


@pytest.mark.parametrize("make", [blobs, digit_codes], ids=["blobs", "digits"])
@pytest.mark.parametrize("n_codes", [8, 32])
def test_codebooks_start_as_good_as_scikit_learns_k_means(make, n_codes):
    """Its inertia is at most 1 % above that of the best of ten runs."""
    vectors = make().astype(np.float32)
    reference = KMeans(n_codes, n_init=10, random_state=1).fit(vectors)
    start, counts = kmeans_start(torch.tensor(vectors), None, n_codes, seed=0)
    distances = squares(vectors, start)
    assert distances.min(1).sum() < 1.01 * reference.inertia_
    np.testing.assert_array_equal(counts, np.bincount(distances.argmin(1), minlength=n_codes))


def test_weights_count_when_a_codebook_starts():
    """Inertia with weights is that of scikit-learn; vectors of no weight have no code."""
    vectors = np.random.default_rng(0).uniform(-1, 1, (600, 2))
    vectors[400:] += 3.0
    weight = np.r_[np.exp(3 * vectors[:400, 0]), np.zeros(200)]

    def inertia(codes):
        return squares(vectors, codes).min(1) @ weight

    start, counts = kmeans_start(torch.tensor(vectors), torch.tensor(weight), 8, seed=0)
    best, without_weights = (
        inertia(KMeans(8, n_init=10, random_state=1).fit(vectors, sample_weight=w).cluster_centers_)
        for w in (weight, weight > 0)
    )
    assert inertia(start) < 1.02 * best < 0.9 * without_weights
    assert start.abs().max() < 1.0
    cell = squares(vectors, start).argmin(1)
    np.testing.assert_allclose(counts, np.bincount(cell, weight, 8))


@pytest.mark.parametrize("shift", [0.0, 100.0])
@pytest.mark.parametrize("n_vectors", [1, 3, 7, 16])
def test_few_vectors_start_codes_that_differ(n_vectors, shift):
    """Every code is finite and its own, and every vector has a code near it."""
    z = normal(n_vectors, 4) + shift
    start, counts = kmeans_start(z, None, 16, seed=0)
    assert start.isfinite().all()
    assert torch.equal(nearest(start, start), torch.arange(16))
    assert counts.sum() == n_vectors
    scale = z.std(correction=0) if n_vectors > 1 or not shift else z[0].std()
    assert np.sqrt(squares(z, start).min(1).max()) < 0.6 * scale


@pytest.mark.parametrize("value", [0.0, 1.0, -50.0, 1e-6])
@pytest.mark.parametrize("n_vectors", [1, 3, 8])
def test_equal_vectors_start_codes_that_differ(n_vectors, value):
    """There are as many codes as were asked for, near the vectors for their size."""
    start, counts = kmeans_start(torch.full((n_vectors, 3), value), None, 8, seed=0)
    assert start.isfinite().all()
    assert torch.equal(nearest(start, start), torch.arange(8))
    assert (start - value).abs().max() < 0.5 * (abs(value) or 1.0)
    assert counts.sum() == n_vectors


def test_equal_vectors_may_outnumber_the_codes():
    """Nothing warns, and a code is at the vectors."""
    start, counts = kmeans_start(torch.full((50, 3), 2.0), None, 8, seed=0)
    assert start.isfinite().all()
    assert (start == 2.0).all(1).any()
    assert counts.sum() == 50


@pytest.mark.parametrize("by_loss", [False, True])
def test_stages_start_from_what_the_earlier_ones_leave(by_loss):
    """Every stage's codes are means of their cells; counts add up to the weight of a batch."""
    z = torch.tensor(blobs(), dtype=torch.float32)
    quantizer = codebook_of(8, 5, 2, by_loss=by_loss)
    quantizer.start(z, None, 100.0, seed=0)
    assert quantizer.per_batch == 100.0
    left = z.double().numpy()
    for vectors, counts in zip(quantizer.vectors.detach(), quantizer.counts, strict=True):
        cell = squares(left, vectors).argmin(1)
        means = [left[cell == k].mean(0) for k in range(8)]
        np.testing.assert_allclose(vectors, means, atol=0.1)
        np.testing.assert_allclose(counts, np.bincount(cell, minlength=8) * 100 / len(z), rtol=1e-5)
        left = left - vectors.double().numpy()[cell]


def test_codes_at_their_cells_means_stay():
    """A codebook by k-means, converged, that follows the vectors it was started from."""
    z = torch.tensor(blobs(), dtype=torch.float32)
    quantizer = codebook_of(12, 5)
    quantizer.start(z, None, len(z), seed=0)
    before, counts = quantizer.vectors.clone(), quantizer.counts.clone()
    for _ in range(20):
        found = stage_indices(quantizer, z)
        quantizer.follow(z, found, None, decay=0.5, threshold=0.0, chances=None)
    torch.testing.assert_close(quantizer.vectors, before, rtol=0, atol=0.02)
    torch.testing.assert_close(quantizer.counts, counts, rtol=0.02, atol=0)


# ---------------------------------------------------------------------- running means


def follow_in_numpy(state, z, indices, weight, decay):
    """The recursion, code by code, in float64; `state` is (vectors, counts, sums) of stages."""
    for stage, (vectors, counts, sums) in enumerate(zip(*state, strict=True)):
        before = vectors.copy()
        for k in range(len(vectors)):
            mine = indices[:, stage] == k
            counts[k] = decay * counts[k] + (1 - decay) * weight[mine].sum()
            sums[k] = decay * sums[k] + (1 - decay) * (z[mine] * weight[mine, None]).sum(0)
            vectors[k] = sums[k] / counts[k]
        z = z - before[indices[:, stage]]


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("n_quantizers", [1, 2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_codes_are_running_means_of_the_encodings(n_quantizers, weighted, decay):
    """N <- γN + (1 - γ)n, m <- γm + (1 - γ)Σz, e = m / N, of what earlier stages left."""
    rng = np.random.default_rng(0)
    quantizer = codebook_of(4, 3, n_quantizers)
    state = [
        t.double().numpy().copy() for t in (quantizer.vectors, quantizer.counts, quantizer.sums)
    ]
    per_batch = 20.0
    for step in range(8):
        z = normal(60, 3, seed=step)
        indices = stage_indices(quantizer, z)
        # Every code has a vector: no count is zero, also without a memory.
        indices[:4] = torch.arange(4)[:, None]
        weight = rng.uniform(0.1, 3.0, 60).astype(np.float32) if weighted else np.ones(60)
        follow_in_numpy(state, z.double().numpy(), indices.numpy(), weight, decay)
        per_batch = decay * per_batch + (1 - decay) * weight.sum()
        given = torch.tensor(weight) if weighted else None
        quantizer.follow(z, indices, given, decay=decay, threshold=0.0, chances=None)
    found = (quantizer.vectors, quantizer.counts, quantizer.sums)
    for value, expected in zip(found, state, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    assert quantizer.per_batch.item() == pytest.approx(per_batch, rel=1e-5)


def test_codes_of_little_weight_are_running_means_too():
    """One with a millionth of a batch moves to what it codes; one with nothing stays."""
    quantizer = codebook_of(3, 2)
    z, indices = normal(40, 2), torch.arange(40)[:, None] % 2
    weight = torch.where(indices[:, 0] == 1, 1e-6, 1.0)
    before = quantizer.vectors.clone()
    for _ in range(60):
        quantizer.follow(z, indices, weight, decay=0.5, threshold=0.0, chances=None)
    torch.testing.assert_close(quantizer.vectors[0, 0], z[::2].mean(0))
    torch.testing.assert_close(quantizer.vectors[0, 1], z[1::2].mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(quantizer.vectors[0, 2], before[0, 2])


@pytest.mark.parametrize("rows", ["repeated", "of no weight"])
def test_codes_follow_weighted_vectors_as_repeated_ones(rows):
    """Integer weights, zero among them."""
    z, n_times = normal(30, 3), torch.randint(4, (30,), generator=generator())
    if rows == "of no weight":
        n_times = n_times.clamp(max=1)
    weighted, repeated = codebook_of(n_quantizers=2), codebook_of(n_quantizers=2)
    found = stage_indices(weighted, z)
    options = {"decay": 0.7, "threshold": 0.0, "chances": None}
    weighted.follow(z, found, n_times.float(), **options)
    many = (values.repeat_interleave(n_times, 0) for values in (z, found))
    repeated.follow(*many, None, **options)
    for name, value in weighted.state_dict().items():
        torch.testing.assert_close(value, repeated.state_dict()[name])


def test_a_codebook_by_loss_counts_and_does_not_move():
    """Its counts are those of running means, its vectors the optimiser's."""
    z = normal(60, 3)
    by_loss, by_means = codebook_of(n_quantizers=2, by_loss=True), codebook_of(n_quantizers=2)
    before = by_loss.vectors.detach().clone()
    found = stage_indices(by_loss, z)
    for quantizer in (by_loss, by_means):
        quantizer.follow(z, found, None, decay=0.8, threshold=0.0, chances=None)
    assert torch.equal(by_loss.vectors, before)
    torch.testing.assert_close(by_loss.counts, by_means.counts)


@pytest.mark.parametrize(("decay", "n_steps"), [(0.9, 1500), (0.99, 5000)])
def test_codes_that_nothing_uses_stay_where_they_are(decay, n_steps):
    """After thousands of batches, when their counts and sums are no numbers of float32."""
    quantizer = codebook_of(4, 2)
    before = quantizer.vectors.clone()
    z, indices = normal(10, 2), torch.zeros(10, 1, dtype=torch.int64)
    for _ in range(n_steps):
        quantizer.follow(z, indices, None, decay=decay, threshold=0.0, chances=None)
    assert quantizer.counts[0, 1:].max() < 1e-20
    torch.testing.assert_close(quantizer.vectors[:, 1:], before[:, 1:], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(quantizer.vectors[0, 0], z.mean(0), rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------- restarts


@pytest.mark.parametrize("by_loss", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_dead_codes_begin_anew_at_encodings(by_loss, weighted):
    """At what is left to their stage; the other codes are as they are without restarts."""
    quantizer, plain = (codebook_of(6, 3, 2, by_loss=by_loss) for _ in range(2))
    z = normal(50, 3)
    weight = (torch.arange(50) % 3).float() if weighted else None
    indices = stage_indices(quantizer, z)
    # In the first stage nothing has code 2, in the second nothing has code 4.
    indices[indices[:, 0] == 2, 0] = 0
    indices[indices[:, 1] == 4, 1] = 1
    left = [z, z - quantizer.vectors[0].detach()[indices[:, 0]]]
    options = {"decay": 0.1, "threshold": 0.2}
    chances = torch.rand(2, 50, generator=generator())
    quantizer.follow(z, indices, weight, **options, chances=chances)
    plain.follow(z, indices, weight, **options, chances=None)
    alike = plain.per_batch / 6
    for stage, dead in enumerate([2, 4]):
        is_dead = plain.counts[stage] < 0.2 * alike
        assert is_dead[dead]
        others = ~is_dead
        assert torch.equal(quantizer.vectors[stage, others], plain.vectors[stage, others])
        assert torch.equal(quantizer.counts[stage, others], plain.counts[stage, others])
        assert (quantizer.counts[stage, is_dead] == alike).all()
        pool = left[stage] if weight is None else left[stage][weight > 0]
        for code in quantizer.vectors[stage, is_dead]:
            assert (pool == code).all(1).any()
        if not by_loss:
            expected = quantizer.vectors[stage] * quantizer.counts[stage, :, None]
            torch.testing.assert_close(quantizer.sums[stage], expected, rtol=1e-5, atol=1e-5)


def first_choices(z, weight, n_runs=3000):
    """How often each encoding is what the first dead code begins anew at."""
    draws, indices = generator(), torch.zeros(len(z), 1, dtype=torch.int64)
    chosen = torch.zeros(len(z))
    for _ in range(n_runs):
        quantizer = codebook_of(1, z.shape[1])
        chances = torch.rand(1, len(z), generator=draws)
        # The code that all encodings have is dead, too, for a threshold beyond all counts.
        quantizer.follow(z, indices, weight, decay=0.5, threshold=1e9, chances=chances)
        chosen += (z == quantizer.vectors[0]).all(1)
    assert chosen.sum() == n_runs
    return chosen.numpy()


def test_dead_codes_choose_encodings_by_weight():
    """By chi-square; those of weight zero, first and last among them, never."""
    weight = torch.tensor([0.0, 1.0, 0.0, 3.0, 2.0, 0.0, 0.0])
    chosen = first_choices(normal(7, 2), weight)
    assert not chosen[weight == 0].any()
    expected = 3000 * weight[weight > 0].numpy() / weight.sum().item()
    assert stats.chisquare(chosen[weight > 0], expected).pvalue > 1e-3


def test_dead_codes_choose_encodings_alike():
    """Without weights, by chi-square."""
    assert stats.chisquare(first_choices(normal(7, 2), None)).pvalue > 1e-3


@pytest.mark.parametrize("n_codes", [3, 5, 8])
@pytest.mark.parametrize("chance", [0.0, None, 1 - 2**-24])
def test_each_dead_code_begins_at_another_encoding(n_codes, chance):
    """As long as there are some that count; codes beyond them stay where they are."""
    z, indices = 10 + normal(7, 3), torch.zeros(7, 1, dtype=torch.int64)
    weight = torch.tensor([0.0, 1.0, 2.0, 0.0, 0.5, 1.0, 1.0])
    quantizer, plain = codebook_of(n_codes, 3), codebook_of(n_codes, 3)
    chances = torch.rand(1, 7, generator=generator())
    if chance is not None:
        chances = torch.full((1, 7), chance)
    quantizer.follow(z, indices, weight, decay=0.5, threshold=1e9, chances=chances)
    plain.follow(z, indices, weight, decay=0.5, threshold=1e9, chances=None)
    equal = (quantizer.vectors[0][:, None] == z).all(-1)
    assert equal.sum(0).max() == 1
    assert not equal[:, weight == 0].any()
    n_anew = min(n_codes, 5)
    assert equal.any(1).sum() == n_anew
    assert torch.equal(quantizer.vectors[0, n_anew:], plain.vectors[0, n_anew:])


@pytest.mark.parametrize("chances", [None, "drawn"])
def test_nothing_begins_anew_without_a_threshold_or_chances(chances):
    """Though codes have counts of zero."""
    quantizer, plain = codebook_of(4, 3), codebook_of(4, 3)
    z, indices = normal(9, 3), torch.zeros(9, 1, dtype=torch.int64)
    for _ in range(3):
        drawn = torch.rand(1, len(z), generator=generator()) if chances else None
        threshold = 0.0 if chances else 1e9
        quantizer.follow(z, indices, None, decay=0.0, threshold=threshold, chances=drawn)
        plain.follow(z, indices, None, decay=0.0, threshold=0.0, chances=None)
    assert torch.equal(quantizer.vectors, plain.vectors)
    assert torch.equal(quantizer.counts, plain.counts)


# -------------------------------------------------------------------------- penalties


def make_quantizer(kind, n_quantizers):
    if kind == "linear":
        options = {"rotation": False, "generator": generator()}
        quantizer = LinearQuantizer(6, 3, n_quantizers, **options)
        with torch.no_grad():
            quantizer.maps.add_(0.3 * normal(n_quantizers, 3, 3))
        return quantizer
    return codebook_of(6, 3, n_quantizers, by_loss=kind == "loss")


@pytest.mark.parametrize("n_quantizers", [1, 2])
@pytest.mark.parametrize("kind", ["means", "loss", "linear"])
def test_penalties_are_mean_squared_distances(kind, n_quantizers):
    """Of every row, over positions and dimensions, summed over stages."""
    quantizer, z = make_quantizer(kind, n_quantizers), normal(5, 4, 3)
    out = quantizer(z)
    expected, left = np.zeros(5), z.double().numpy()
    for stage in range(n_quantizers):
        codes = quantizer.codebook(stage).detach().double().numpy()
        for row in range(5):
            distances = squares(left[row], codes)
            expected[row] += distances.min(1).sum() / (4 * 3)
            left[row] -= codes[distances.argmin(1)]
    assert set(out.penalties) == ({"commitment"} if kind == "means" else {"commitment", "codebook"})
    for value in out.penalties.values():
        np.testing.assert_allclose(value.detach(), expected, rtol=1e-5)


@pytest.mark.parametrize("n_quantizers", [1, 2])
def test_commitment_moves_vectors_only(n_quantizers):
    """By 2 (z - e) / (P D) for every stage, with codes as constants."""
    quantizer = make_quantizer("loss", n_quantizers)
    z = normal(5, 4, 3).requires_grad_()
    out = quantizer(z)
    of_z, of_codes = torch.autograd.grad(
        out.penalties["commitment"].sum(), (z, quantizer.vectors), allow_unused=True
    )
    assert of_codes is None or not of_codes.any()
    rest, expected = z.detach(), torch.zeros(5, 4, 3)
    for stage in range(n_quantizers):
        rest = rest - quantizer.vectors[stage].detach()[out.indices[..., stage]]
        expected += 2 * rest / 12
    torch.testing.assert_close(of_z, expected)


@pytest.mark.parametrize("n_quantizers", [1, 2])
def test_the_codebook_penalty_moves_codes_only(n_quantizers):
    """Every code by the sum of 2 (e - z) / (P D) over what it codes."""
    quantizer = make_quantizer("loss", n_quantizers)
    z = normal(5, 4, 3).requires_grad_()
    out = quantizer(z)
    of_codes, of_z = torch.autograd.grad(
        out.penalties["codebook"].sum(), (quantizer.vectors, z), allow_unused=True
    )
    assert of_z is None or not of_z.any()
    rest, expected = z.detach(), torch.zeros_like(of_codes)
    for stage in range(n_quantizers):
        codes = quantizer.vectors[stage].detach()
        chosen = out.indices[..., stage]
        for row, position in itertools.product(range(5), range(4)):
            k = chosen[row, position]
            expected[stage, k] += 2 * (codes[k] - rest[row, position]) / 12
        rest = rest - codes[chosen]
    torch.testing.assert_close(of_codes, expected)


@pytest.mark.parametrize("stage", [0, 1])
def test_the_codebook_penalty_moves_the_linear_map(stage):
    """By finite differences, while every vector keeps its code; the frozen codes stay."""
    quantizer, z = make_quantizer("linear", 2).double(), normal(5, 4, 3).double()
    out = quantizer(z)
    out.penalties["codebook"].sum().backward()
    assert not quantizer.frozen.requires_grad
    assert [name for name, _ in quantizer.named_parameters()] == ["maps"]

    # What the second stage is left are constants to the gradient.
    rest = z
    for earlier in range(stage):
        rest = rest - quantizer.codebook(earlier).detach()[out.indices[..., earlier]]

    def penalty(w):
        codes = quantizer.frozen[stage] @ w
        return (rest - codes[out.indices[..., stage]]).square().sum() / 12

    w, step = quantizer.maps[stage].detach(), 1e-6
    for i, j in itertools.product(range(3), range(3)):
        move = torch.zeros(3, 3).double()
        move[i, j] = step
        slope = (penalty(w + move) - penalty(w - move)) / (2 * step)
        assert quantizer.maps.grad[stage, i, j].item() == pytest.approx(slope.item(), rel=1e-6)


# ---------------------------------------------------------------------------- stages


@pytest.mark.parametrize("rotation", [False, True])
@pytest.mark.parametrize("by_loss", [False, True])
def test_stages_code_what_the_earlier_ones_left(by_loss, rotation):
    """By brute force; the value is the sum of the stages' codes, which indices look up."""
    quantizer = codebook_of(6, 3, 3, by_loss=by_loss, rotation=rotation)
    z = normal(5, 4, 3)
    out = quantizer(z)
    assert out.value.shape == z.shape
    assert out.indices.shape == (5, 4, 3)
    left, total = z.double().numpy().reshape(20, 3), np.zeros((20, 3))
    for stage in range(3):
        codes = quantizer.codebook(stage).detach().double().numpy()
        chosen = squares(left, codes).argmin(1)
        np.testing.assert_array_equal(out.indices[..., stage].flatten(), chosen)
        left, total = left - codes[chosen], total + codes[chosen]
    np.testing.assert_allclose(out.value.detach().reshape(20, 3), total, atol=1e-5)
    torch.testing.assert_close(quantizer.look_up(out.indices), out.value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rotation", [False, True])
@pytest.mark.parametrize("by_loss", [False, True])
def test_the_value_passes_gradients_to_vectors_only(by_loss, rotation):
    """Unchanged, or turned and scaled from the sum of the codes to the vector."""
    quantizer = codebook_of(6, 3, 2, by_loss=by_loss, rotation=rotation)
    z, cotangent = normal(5, 4, 3).requires_grad_(), normal(5, 4, 3, seed=1)
    out = quantizer(z)
    out.value.backward(cotangent)
    if by_loss:
        assert quantizer.vectors.grad is None or not quantizer.vectors.grad.any()
    expected = cotangent.double().numpy().copy()
    if rotation:
        pairs = zip(z.detach().double().numpy(), out.value.detach().double().numpy(), strict=True)
        for row, (vectors, codes) in enumerate(pairs):
            for position, (v, e) in enumerate(zip(vectors, codes, strict=True)):
                turn = rotation_between(v, e) * (np.linalg.norm(e) / np.linalg.norm(v))
                expected[row, position] = turn.T @ expected[row, position]
    np.testing.assert_allclose(z.grad, expected, rtol=1e-4, atol=1e-5)


def test_the_error_falls_with_stages():
    """Of a codebook that was started from the vectors."""
    z = torch.tensor(blobs(), dtype=torch.float32)
    errors = []
    for n_quantizers in (1, 2, 3, 4):
        quantizer = codebook_of(8, 5, n_quantizers)
        quantizer.start(z, None, 100.0, seed=0)
        value = quantizer(z[:, None]).value[:, 0]
        errors.append((value - z).square().mean().item())
    assert (np.diff(errors) < -0.1 * np.array(errors[:-1])).all()


@pytest.mark.parametrize("kind", ["means", "loss", "linear"])
def test_codes_have_their_own_indices(kind):
    """What indices look up is found again, of one stage."""
    quantizer = make_quantizer(kind, 1)
    indices = torch.randint(6, (5, 4, 1), generator=generator())
    assert torch.equal(quantizer(quantizer.look_up(indices)).indices, indices)


# ------------------------------------------------------------------- one linear map


@pytest.mark.parametrize("weighted", [False, True])
def test_a_linear_quantizer_starts_with_the_moments_of_the_vectors(weighted):
    """Of many codes, to the error of their number; the second stage of what the first leaves."""
    quantizer = LinearQuantizer(20_000, 3, 2, rotation=False, generator=generator())
    z = normal(200, 3) @ normal(3, 3, seed=1) + torch.tensor([1.0, 0.0, -2.0])
    weight = torch.rand(200, generator=generator(2)) if weighted else None
    quantizer.start(z, weight)
    left, w = z.double().numpy(), np.ones(200) if weight is None else weight.double().numpy()
    for stage in range(2):
        codes = quantizer.codebook(stage).detach().double().numpy()
        expected = np.einsum("n,ni,nj->ij", w / w.sum(), left, left)
        error = 6 * np.sqrt(2 / len(codes)) * np.trace(expected)
        np.testing.assert_allclose(codes.T @ codes / len(codes), expected, atol=error)
        assert error < 0.1 * np.trace(expected)
        maps = quantizer.maps[stage].detach().double().numpy()
        np.testing.assert_allclose(maps.T @ maps, expected, atol=1e-3 * np.trace(expected))
        left = left - codes[squares(left, codes).argmin(1)]


def test_a_linear_quantizer_starts_from_flat_or_no_vectors():
    """Vectors in a plane, or that are zero, have a root all the same."""
    for z in (normal(50, 1) * torch.tensor([[1.0, 2.0, 0.0]]), torch.zeros(50, 3)):
        quantizer = LinearQuantizer(8, 3, 1, rotation=False, generator=generator())
        quantizer.start(z, None)
        assert quantizer.codebook(0).isfinite().all()


# ------------------------------------------------------------------------ tanh cells


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_every_scalar_code_is_found_at_its_index(levels):
    """There are as many as cells, all different, between -1 and 1."""
    quantizer = ScalarQuantizer(levels, 1)
    codes = quantizer.codebook(0)
    assert codes.shape == (np.prod(levels), len(levels))
    assert len(np.unique(codes, axis=0)) == np.prod(levels)
    assert codes.abs().max() < 1
    assert torch.equal(quantizer.find(codes, 0), torch.arange(len(codes)))


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_scalar_codes_are_centres_of_equal_cells(levels):
    """Every dimension has them at equal distances, half of one from -1 and 1."""
    codes = ScalarQuantizer(levels, 1).codebook(0).double().numpy()
    for column, n in zip(codes.T, levels, strict=True):
        edges = np.linspace(-1, 1, n + 1)
        np.testing.assert_allclose(np.unique(column), (edges[1:] + edges[:-1]) / 2, atol=1e-6)


@pytest.mark.parametrize("n_quantizers", [1, 2, 3])
@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_scalar_codes_are_nearest_among_all(levels, n_quantizers):
    """By brute force over the whole codebook of every stage, in the space of tanh."""
    quantizer = ScalarQuantizer(levels, n_quantizers)
    z = normal(40, 5, len(levels))
    out = quantizer(z)
    left = z.double().tanh().numpy().reshape(200, -1)
    for stage in range(n_quantizers):
        codes = quantizer.codebook(stage).double().numpy()
        distances = squares(left, codes)
        chosen = out.indices[..., stage].flatten().numpy()
        np.testing.assert_allclose(
            np.sqrt(distances[np.arange(200), chosen]), np.sqrt(distances.min(1)), atol=1e-6
        )
        left = left - codes[chosen]
    expected = z.double().tanh().numpy().reshape(200, -1) - left
    np.testing.assert_allclose(out.value.reshape(200, -1), expected, atol=1e-6)
    torch.testing.assert_close(quantizer.look_up(out.indices), out.value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_stages_divide_cells(levels):
    """After q stages of L levels the error is at most 1 / L^q, and nearly attains it."""
    z = normal(2000, 1, len(levels))
    for n_quantizers in (1, 2, 3):
        error = (ScalarQuantizer(levels, n_quantizers)(z).value - z.tanh()).abs().amax((0, 1))
        most = 1 / np.array(levels, dtype=float) ** n_quantizers
        assert (error.numpy() <= most + 1e-6).all()
        assert (error.numpy() > 0.8 * most).all()


@pytest.mark.parametrize("n_quantizers", [1, 2])
def test_scalars_far_out_have_the_outermost_codes(n_quantizers):
    """Where tanh is 1 to the last digit, or its sign is the other."""
    quantizer = ScalarQuantizer((3, 4), n_quantizers)
    out = quantizer(torch.tensor([[[1e4, -1e4]], [[-20.0, 20.0]]]))
    most = 1 - 1 / np.array([3.0, 4.0]) ** n_quantizers
    np.testing.assert_allclose(out.value[:, 0], most * [[1, -1], [-1, 1]], atol=1e-6)


def test_scalar_gradients_are_those_of_tanh():
    """Whatever the codes; and there is nothing to learn."""
    quantizer = ScalarQuantizer((3, 4), 2)
    z, cotangent = normal(5, 4, 2).requires_grad_(), normal(5, 4, 2, seed=1)
    quantizer(z).value.backward(cotangent)
    torch.testing.assert_close(z.grad, cotangent / z.detach().cosh().square())
    assert not list(quantizer.parameters())
    assert not quantizer(z).penalties


@pytest.mark.parametrize("far", [1e4, 1e6])
def test_a_code_far_from_all_others_costs_them_no_digits(far):
    """Nearest codes are those of the codebook without it."""
    codebook, z = normal(64, 8), normal(500, 8)
    expected = torch.cdist(z.double(), codebook.double()).argmin(1)
    outlying = torch.cat([codebook, torch.full((1, 8), far)])
    assert torch.equal(nearest(z, outlying), expected)


def test_equal_vectors_start_codes_apart():
    """Also where there are more of them than codes."""
    codebook, _ = kmeans_start(torch.tensor([[0.0, 0.0], [1.0, 1.0]]).repeat(50, 1), None, 8, 0)
    distances = torch.cdist(codebook, codebook) + torch.eye(8)
    assert distances.min() > 1e-3


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from Linux")
def test_distances_are_held_in_pieces():
    """A codebook of 65,536 adds little to the peak of memory, however many vectors there are."""
    script = """
import resource, torch
from skae._nn.quantizers import nearest
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
codebook, z = torch.randn(65_536, 8), torch.randn(8000, 8)
nearest(z[:10], codebook)
before = peak()
nearest(z, codebook)
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 100  # MB; all distances would take 2000
