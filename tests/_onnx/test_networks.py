"""What graphs of networks compute by other formulas than torch, beside SciPy."""

import numpy as np
from scipy import special

from helpers import tensor
from skae._onnx.networks import normal_cdf


def test_normal_distribution_function():
    x = np.concatenate([np.linspace(-9, 9, 4001), [-37.0, 0.0, 37.0]])
    found = normal_cdf(tensor(x)).numpy()
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, special.ndtr(x), rtol=1e-12)
