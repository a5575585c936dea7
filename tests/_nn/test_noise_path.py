"""NoisePath: the noise of every size, against SciPy's densities and means by hand."""

import numpy as np
import pytest
import torch
from scipy import stats

from helpers import normal
from skae._nn.likelihoods import Gaussian, Laplace
from skae._nn.noise_path import Explained, NoisePath


def path_of(kind, noise, variances):
    likelihood = kind(3, noise, 1.0, 1e-4)
    path = NoisePath(likelihood, len(variances))
    path.variance.copy_(torch.tensor(variances).reshape(path.variance.shape))
    return likelihood, path


@pytest.mark.parametrize("n_draws", [None, 4])
@pytest.mark.parametrize("noise", ["scalar", "per_feature"])
@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_rows_have_the_noise_of_their_size(kind, noise, n_draws):
    """Densities are SciPy's, of what was seen, and the others count nothing."""
    variances = [4.0, 1.0] if noise == "scalar" else [[4.0, 2.0, 1.0], [0.5, 1.0, 3.0]]
    likelihood, path = path_of(kind, noise, variances)
    size = torch.tensor([1, 2, 2, 1, 1])
    x, seen = normal(5, 3), (normal(5, 3, seed=2) > -0.5).float()
    output = normal(5, 3, seed=1) if n_draws is None else normal(5, n_draws, 3, seed=1)
    std = np.sqrt(np.broadcast_to(np.array(variances).reshape(2, -1), (2, 3)))[size.numpy() - 1]
    if n_draws is not None:
        x, seen, std = x[:, None], seen[:, None], std[:, None]
    density = stats.norm if kind is Gaussian else stats.laplace
    scale = std if kind is Gaussian else std / np.sqrt(2)
    expected = density.logpdf(x.numpy(), output.numpy(), scale)
    found = path.row_log_prob(likelihood, x, output, None, size)
    np.testing.assert_allclose(found, expected.sum(-1), rtol=1e-5)
    found = path.row_log_prob(likelihood, x, output, seen, size)
    np.testing.assert_allclose(found, (expected * seen.numpy()).sum(-1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("noise", ["scalar", "per_feature"])
def test_the_noise_of_a_size_is_the_mean_square_of_its_rows(noise):
    """Weighted, over what was seen; of a size without rows it stays what it was."""
    likelihood, path = path_of(Gaussian, noise, np.full((3, 3 if noise != "scalar" else 1), 7.0))
    size = torch.tensor([1, 3, 3, 1, 3, 1])
    x, output, seen = normal(6, 3), normal(6, 3, seed=1), torch.ones(6, 3)
    seen[0, 1] = seen[4, 2] = 0
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0, 1.0])
    rows = Explained(x, output, weight, seen, size)
    path.settle(likelihood, *path.sums(likelihood, rows))
    axis = None if noise == "scalar" else 0
    for k in (1, 3):
        of_size = (size == k).numpy()
        w = (weight[:, None] * seen).numpy()[of_size]
        square = np.square((x - output).numpy())[of_size]
        np.testing.assert_allclose(
            path.variance[k - 1], np.average(square, axis=axis, weights=w), rtol=1e-5
        )
    assert torch.all(path.variance[1] == 7.0)
    # The first batch of a running mean is taken whole, the next ones by a share.
    settled = path.variance.clone()
    path.variance.fill_(7.0)
    path.follow(likelihood, rows)
    torch.testing.assert_close(path.variance, settled)
    path.follow(likelihood, rows._replace(output=x))
    torch.testing.assert_close(path.variance[[0, 2]], settled[[0, 2]] / 2)
    assert torch.all(path.variance[1] == 7.0)
    path.settle(likelihood, *path.sums(likelihood, rows._replace(output=x)))
    torch.testing.assert_close(path.variance[0], torch.full_like(path.variance[0], 1e-4))
