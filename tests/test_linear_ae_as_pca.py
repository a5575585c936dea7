"""scikit-learn's own tests of PCA, with LinearAE in PCA's place."""

import inspect

import numpy as np
import pytest
from sklearn.decomposition.tests import test_pca as theirs


@pytest.fixture(params=[np.float32, np.float64])
def global_dtype(request):
    return request.param


_IMPORT = "from sklearn.decomposition import PCA\n"
_SOURCE = inspect.getsource(theirs)
if _SOURCE.count(_IMPORT) != 1:
    raise RuntimeError("scikit-learn's test_pca.py no longer imports PCA as it did")
exec(
    compile(_SOURCE.replace(_IMPORT, "from skae import LinearAE as PCA\n"), theirs.__file__, "exec")
)
