"""scikit-learn's own tests of IncrementalPCA, with LinearAE.partial_fit in its place."""

import inspect

from sklearn.decomposition.tests import test_incremental_pca as theirs
from sklearn.utils import gen_batches

from skae import LinearAE


class IncrementalPCA(LinearAE):
    """A fit by batches, as IncrementalPCA's."""

    def __init__(self, n_components=None, *, whiten=False, copy=True, batch_size=None):
        super().__init__(n_components, whiten=whiten, copy=copy)
        self.batch_size = batch_size

    def fit(self, X, y=None):
        self._take_previous()
        self.batch_size_ = self.batch_size or 5 * X.shape[1]
        least = self.n_components or 0
        for batch in gen_batches(X.shape[0], self.batch_size_, min_batch_size=least):
            self.partial_fit(X[batch])
        return self

    def fit_transform(self, X, y=None):
        return self.fit(X).transform(X)


_IMPORT = "from sklearn.decomposition import PCA, IncrementalPCA\n"
_SOURCE = inspect.getsource(theirs)
if _SOURCE.count(_IMPORT) != 1:
    raise RuntimeError("scikit-learn's test_incremental_pca.py no longer imports as it did")
exec(
    compile(
        _SOURCE.replace(_IMPORT, "from sklearn.decomposition import PCA\n"),
        theirs.__file__,
        "exec",
    )
)

del test_incremental_pca_sparse  # noqa: F821 (it ends in a refusal of sparse batches)
del test_incremental_pca_validation  # noqa: F821 (the words of errors; a short batch is no error)
del test_incremental_pca_set_params  # noqa: F821 (a change of n_components is no error)
del test_incremental_pca_feature_names_out  # noqa: F821 (the names are PCA's)
