import os

import pytest

# SciPy reads this when it is first imported; scikit-learn's array-API checks need it.
os.environ.setdefault("SCIPY_ARRAY_API", "1")
# Workers of pytest-xdist would otherwise wait for each other's threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Displays draw without a screen.
os.environ.setdefault("MPLBACKEND", "Agg")
# Their assertions say what differs, as those of tests do.
pytest.register_assert_rewrite("contract_helpers", "helpers")


@pytest.fixture(params=[0, 7])
def global_random_seed(request):
    """Which scikit-learn's own tests ask for."""
    return request.param
