#!/usr/bin/env bash
# astroML 1.0.2.post1: XDGMM.sample ignores random_state, and returns its samples in the order of
# the components.
#
# A good engineer's guess: sample(size, random_state=0) draws the same samples each time, as the
# random_state of the constructor does for the initial mixture of fit, and the samples are
# independent and identically distributed, so that the first half of them is a sample as well.
# What happens: a generator is made from random_state and not used. All numbers come from the global
# generator of NumPy, which is advanced, so that samples differ from call to call with any
# random_state, and repeat after numpy.random.seed only. The samples of the first component are
# before those of the second, and so on: each half of a sample has about half of the components.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q astroML==1.0.2.post1 numpy==1.26.4 scipy==1.17.1 \
    scikit-learn==1.9.1 astropy==7.2.3 matplotlib==3.11.2
"$folder/venv/bin/python" - <<'PY'
import platform

import astroML
import numpy as np
import sklearn
from astroML.density_estimation import XDGMM

print("Python", platform.python_version(), "astroML", astroML.__version__)
print("numpy", np.__version__, "scikit-learn", sklearn.__version__)

rng = np.random.default_rng(0)
means = np.array([[0.0, 0.0], [100.0, 0.0]])
X = means[rng.integers(0, 2, 400)] + rng.normal(size=(400, 2))
noise = np.tile(0.01 * np.eye(2), (400, 1, 1))


def fitted():
    return XDGMM(2, max_iter=5, random_state=0).fit(X, noise)


one, other = fitted(), fitted()
print("two fits with random_state=0 are equal:", np.array_equal(one.mu, other.mu))
assert np.array_equal(one.mu, other.mu)

same = np.array_equal(one.sample(100, random_state=0), one.sample(100, random_state=0))
print("two samples with random_state=0 are equal:", same)
assert not same

drawn = []
for _ in range(2):
    np.random.seed(1)
    drawn.append(one.sample(100, random_state=np.random.randint(100)))
print("two samples after numpy.random.seed(1) are equal:", np.array_equal(*drawn))
assert np.array_equal(*drawn)

before = np.random.get_state()[1].copy(), np.random.get_state()[2]
one.sample(100, random_state=0)
after = np.random.get_state()[1], np.random.get_state()[2]
advanced = before[1] != after[1] or not np.array_equal(before[0], after[0])
print("the global generator is advanced:", advanced)
assert advanced

samples = one.sample(2000)
right = np.abs(samples[:, 0] - one.mu[1, 0]) < 20  # of the second component
print("shares of the second component:", right.mean().round(2), "of all samples,",
      right[:700].mean().round(2), "of the first 700,", right[-700:].mean().round(2),
      "of the last 700")
assert 0.4 < right.mean() < 0.6
assert right[:700].mean() == 0 and right[-700:].mean() == 1

print("as described")
PY
