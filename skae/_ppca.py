"""Probabilistic principal component analysis, factor analysis and their Bayesian forms.

p(z) = N(0, I), p(x|z) = N(W z + mu, Psi), and so p(x) = N(mu, W W' + Psi), with Psi = sigma2 I for
probabilistic PCA, and any diagonal Psi for factor analysis. Both have an exact encoder.

References
----------
M. E. Tipping and C. M. Bishop (1999). Probabilistic principal component analysis.
J. R. Stat. Soc. B 61(3), 611-622. :doi:`10.1111/1467-9868.00196`

D. B. Rubin and D. T. Thayer (1982). EM algorithms for ML factor analysis. Psychometrika 47(1),
69-76. :doi:`10.1007/BF02293851`
"""

from __future__ import annotations

import copy
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from skae._gaussian_streams import GaussianStreams
from skae._linear.factor_analysis import n_free_parameters as n_free_parameters_of_factors
from skae._linear.latent_size import n_free_parameters
from skae._linear.low_rank_gaussian import noise_floor
from skae._linear.old_files import ppca_state
from skae._linear.subspace import Spectrum
from skae._truncation import TruncationMixin
from skae._utils.types import RandomState
from skae._utils.validation import Interval, RealNotInt, StrOptions

Array = NDArray[Any]


class PPCA(GaussianStreams):
    r"""Probabilistic PCA and factor analysis: linear Gaussian models that accept missing values.

    The model is

    .. math:: p(z) = N(0, I), \quad p(x | z) = N(W z + \mu, \Psi)

    where :math:`\Psi` is diagonal. In probabilistic PCA all features have the noise variance
    :math:`\sigma^2`. In factor analysis (`noise_variance="per_feature"`) each has its own. With
    `loadings_prior="ard"` the loadings W have a prior, which finds the number of codes.

    Bayes' rule gives the encoder
    :math:`p(z | x) = N(M^{-1} W^T \Psi^{-1} (x - \mu), M^{-1})`, with
    :math:`M = I + W^T \Psi^{-1} W`. `transform` returns its mean, and `score_samples` returns the
    log density of the rows. NaN marks a missing value. `fit`, `transform`, `score_samples` and
    `reconstruct` integrate over the missing values, and `impute` fills them in. `partial_fit`
    learns from a stream of batches.

    Parameters
    ----------
    n_components : int, float, 'mle', 'bic' or None, default=None
        Number of codes. A float in (0, 1) takes the smallest number whose codes explain more than
        this fraction of the variance. `'mle'` chooses the number by Minka's method, which needs
        n_samples >= n_features. `'bic'` takes the number with the lowest BIC, at most
        n_samples / 2. None takes min(n_samples, n_features) - 1, but at least 1. With
        `noise_variance="per_feature"` or a prior, only an integer or None is possible. Without a
        prior, None is then at most the Ledermann bound, above which factor analysis has more
        parameters than a covariance. With a prior this is the largest number, because codes that
        are not needed are switched off.
    noise_variance : {'auto', 'scalar', 'per_feature'}, default='auto'
        Whether all features have one noise variance (`'scalar'`), or each has its own
        (`'per_feature'`). `'auto'` means `'scalar'` without a prior, and `'per_feature'` with one.
    loadings_prior : {'ard'} or None, default=None
        Prior of the loadings. `'ard'` is automatic relevance determination: the prior of each code
        learns how large its loadings are, and codes that explain no more than chance are switched
        off. None estimates the loadings by maximum likelihood.
    rotation : {'varimax', 'quartimax'} or None, default=None
        Orthogonal rotation of the loadings after the fit, for codes that are easier to interpret.
        Both criteria prefer few large loadings and many small ones: `'varimax'` among the loadings
        of each code, `'quartimax'` among those of each feature. Loadings count in the units of the
        features, which therefore affect the rotation. The density and the reconstructions do not
        change.
    solver : {'auto', 'closed_form', 'randomized', 'em'}, default='auto'
        How the model is computed. `'closed_form'` computes exact eigenvectors of the covariance or
        of the Gram matrix, whichever is smaller. `'randomized'` approximates them by block power
        iterations. `'em'` uses the EM algorithm: each step needs
        O(n_samples n_features n_components) operations and no matrix of shape
        (n_features, n_features). `'auto'` means `'em'` if values are missing, or if n_samples and
        n_features both exceed 5000 and `n_components` is an integer or None. Otherwise it means
        `'closed_form'`. For collections of Dask, all but EM with missing values use the covariance.
        With `noise_variance="per_feature"` or a prior, `'closed_form'` and `'randomized'` raise a
        ValueError; `'auto'` and `'em'` are then the same. For complete rows, factor analysis
        without a prior uses L-BFGS after a few steps of EM if there are at most 1000 features.
    tol : float, default=1e-5
        With missing values or a prior, EM stops when what it maximises, the log-likelihood or the
        lower bound, increases by less than `tol` nats per observed value in one step. For complete
        rows and a noise variance for each feature, the limit is 1e-4 `tol`, and 1e-6 `tol` for
        L-BFGS, because many small steps may follow each other. In all other cases it is not used,
        and EM stops when the axes are accurate to the square root of the float precision.
    max_iter : int, default=200
        Maximum number of iterations.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial values of EM and of the solver 'randomized'. With None, every fit uses
        new random numbers. The global generators are not used.

    Attributes
    ----------
    loadings_ : ndarray of shape (n_features_in_, n_components_)
        Loadings W. With one noise variance and no prior, the columns are orthogonal and in order of
        decreasing length. With one for each feature, W' Psi^-1 W is diagonal, in decreasing order.
        With a prior they are posterior means, and W' Psi^-1 W plus its posterior uncertainty is
        diagonal. With `rotation`, they are rotated from there.
    mean_ : ndarray of shape (n_features_in_,)
        Mean mu of the rows.
    noise_variance_ : float or ndarray of shape (n_features_in_,)
        Noise variance sigma^2, in squared units of X. It is at least about the float precision
        times the mean variance of the features. With `noise_variance="per_feature"`, the diagonal
        of Psi, at least the square root of the float precision times the variance of each feature.
    components_ : ndarray of shape (n_components_, n_features_in_)
        Transpose of the loadings W, as in FactorAnalysis. `inverse_transform(Z)` equals
        `Z @ components_ + mean_`.
    axes_ : ndarray of shape (n_components_, n_features_in_)
        Principal axes of W W', orthonormal and in order of decreasing length of W along them. With
        one noise variance and no prior, they equal `components_` of PCA. `rotation` does not change
        them.
    explained_variance_ : ndarray of shape (n_components_,)
        Variance lambda of the model along each axis, with n - 1, as in PCA. (The likelihood uses
        1/n.) With one noise variance and no prior, the variance of the codes is
        1 - sigma^2 / lambda.
    explained_variance_ratio_ : ndarray of shape (n_components_,)
        Fraction of the total variance along each axis.
    singular_values_ : ndarray of shape (n_components_,)
        Square roots of (n - 1) `explained_variance_`. For complete rows, one noise variance and no
        prior, they are the singular values of the centred rows, as in PCA.
    n_components_ : int
        Number of codes.
    n_samples_ : int or float
        Number of training rows, or the sum of their weights if weights were given.
    n_iter_ : int
        Number of complete steps of EM and L-BFGS; 1 for the other solvers.
    log_likelihoods_ : ndarray of shape (n_iter_,)
        Log-likelihood before each step of EM and after each step of L-BFGS, in nats per row. Only
        for these two, and only without a prior.
    lower_bounds_ : ndarray of shape (n_iter_,)
        Variational lower bound on the log density of the training rows, with parameters integrated
        out by the prior, before each step of EM, in nats per row. Only with a prior.
    relevance_ : ndarray of shape (n_components_,)
        Precision alpha of the prior of the loadings of each code. A large value means that the
        code explains little. Only with a prior.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if all are strings.
    score_kind : str
        Kind of the scores: 'log_likelihood', log densities in nats per row.

    See Also
    --------
    LinearAE : PCA with the same axes.
    PPCAImputer : Imputer around this model, for Pipelines.
    sklearn.decomposition.FactorAnalysis : Factor analysis of complete rows.

    Notes
    -----
    Codes are posterior means in units of the prior. The variance of a code is
    1 - sigma^2 / lambda, where lambda is the variance of the rows along the axis. The variance of
    a code of PCA is lambda. The codes equal those of PCA times sqrt(lambda - sigma^2) / lambda.
    This holds for one noise variance, no prior and no rotation.

    With `noise_variance="per_feature"`, a change of the units of the features changes the loadings
    and the noise in the same units, and leaves the codes as they are. No scaler is needed. If the
    likelihood of a feature has its maximum at a noise variance of zero (a Heywood case), the
    noise variance is set to its lower bound, and a warning names the feature.

    With `loadings_prior="ard"`, the priors are w_dj ~ N(0, psi_d / alpha_j), with one precision
    alpha_j for each code, and an inverse gamma distribution of psi_d. The latter counts as five
    values with a mean square of a tenth of the variance of the feature. The posterior of loadings
    and mean is approximated by a Gaussian (variational Bayes); alpha and psi are point estimates.
    Codes are means of the approximate posterior q(z), which takes the uncertainty of the loadings
    into account. When EM has converged, weak codes are removed while that increases the lower bound
    and costs less than one nat of likelihood for each loading. Scores, `get_covariance` and
    `sample` use the posterior means of loadings and mean. Draws of `impute` and of
    `sample(given=...)` draw loadings, mean and noise variances, too, once for each completion, as
    multiple imputation needs.

    With missing values or a prior, steps of EM are made up to eight times as long while they
    increase what is maximised (Salakhutdinov and Roweis 2003). A step that decreases it is taken
    back, and replaced by the step of EM.

    The first Ctrl-C ends EM after the last complete step. The model at that point is kept, and a
    warning is issued. In the following cases Ctrl-C raises KeyboardInterrupt, and the estimator
    stays as it was before `fit`: before the first step is complete, inside a Pipeline or a search,
    in factor analysis by L-BFGS, and, with missing values and an `n_components` that is neither an
    integer nor None, during the first run of EM, from which the number of components is chosen.

    `sample_weight` weights rows: a row of weight 2 has the same effect as two copies of that row.
    The sum of the weights replaces n_samples everywhere, and it must exceed 1.

    References
    ----------
    M. E. Tipping and C. M. Bishop (1999). Probabilistic principal component analysis.
    J. R. Stat. Soc. B 61(3), 611-622. :doi:`10.1111/1467-9868.00196`

    K. G. Joreskog (1967). Some contributions to maximum likelihood factor analysis. Psychometrika
    32(4), 443-482. :doi:`10.1007/BF02289658`

    D. B. Rubin and D. T. Thayer (1982). EM algorithms for ML factor analysis. Psychometrika 47(1),
    69-76. :doi:`10.1007/BF02293851`

    C. M. Bishop (1999). Variational principal components. ICANN, 509-514.
    :doi:`10.1049/cp:19991160`

    A. Ilin and T. Raiko (2010). Practical approaches to principal component analysis in the
    presence of missing values. J. Mach. Learn. Res. 11, 1957-2000.
    https://jmlr.org/papers/v11/ilin10a.html

    R. Salakhutdinov and S. Roweis (2003). Adaptive overrelaxed bound optimization methods. ICML,
    664-671. https://aaai.org/papers/ICML03-087

    H. F. Kaiser (1958). The varimax criterion for analytic rotation in factor analysis.
    Psychometrika 23(3), 187-200. :doi:`10.1007/BF02289233`

    T. P. Minka (2000). Automatic choice of dimensionality for PCA. NIPS 13.

    C. Liu, D. B. Rubin and Y. N. Wu (1998). Parameter expansion to accelerate EM: the
    PX-EM algorithm. Biometrika 85(4), 755-770. :doi:`10.1093/biomet/85.4.755`

    N. Halko, P. G. Martinsson and J. A. Tropp (2011). Finding structure with randomness.
    SIAM Review 53(2), 217-288. :doi:`10.1137/090771806`

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris, load_wine
    >>> from skae import PPCA
    >>> X, _ = load_iris(return_X_y=True)
    >>> X[::7, 2] = np.nan
    >>> ppca = PPCA(n_components=2, random_state=0).fit(X)
    >>> print(f"{ppca.score(X):.2f} nats per row")
    -2.64 nats per row
    >>> ppca.transform(X).shape
    (150, 2)
    >>> bool(np.isnan(ppca.impute(X)).any())
    False

    The prior finds the number of codes, here of a table whose columns have other units:

    >>> wine, _ = load_wine(return_X_y=True)
    >>> bayesian = PPCA(loadings_prior="ard", random_state=0).fit(wine)
    >>> bayesian.n_components_, bayesian.noise_variance_.shape
    (4, (13,))

    Factor analysis by maximum likelihood, with a rotation:

    >>> factors = PPCA(3, noise_variance="per_feature", rotation="varimax").fit(wine)
    >>> print(f"{factors.score(wine):.2f}, with one noise {PPCA(3).fit(wine).score(wine):.2f}")
    -19.18, with one noise -26.58
    """

    _state_shapes = TruncationMixin._state_shapes | {
        "loadings_": ("n_features_in_", "n_components_"),
        "noise_variance_": None,  # one number, or one for each feature
    }
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="neither"),
            StrOptions({"mle", "bic"}),
            None,
        ],
        "noise_variance": [StrOptions({"auto", "scalar", "per_feature"})],
        "loadings_prior": [StrOptions({"ard"}), None],
        "rotation": [StrOptions({"varimax", "quartimax"}), None],
        "solver": [StrOptions({"auto", "closed_form", "randomized", "em"})],
        "tol": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components: int | float | Literal["mle", "bic"] | None = None,
        *,
        noise_variance: Literal["auto", "scalar", "per_feature"] = "auto",
        loadings_prior: Literal["ard"] | None = None,
        rotation: Literal["varimax", "quartimax"] | None = None,
        solver: Literal["auto", "closed_form", "em", "randomized"] = "auto",
        tol: float = 1e-5,
        max_iter: int = 200,
        random_state: RandomState = None,
    ) -> None:
        self.n_components = n_components
        self.noise_variance = noise_variance
        self.loadings_prior = loadings_prior
        self.rotation = rotation
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def _cut(self, size: int) -> None:
        if np.ndim(self.noise_variance_) or self._spread is not None:
            raise ValueError(
                "truncate needs one noise variance and no prior of the loadings, because otherwise "
                "the model with fewer components has other axes. Fit a PPCA with "
                f"n_components={size}."
            )
        by_em = self._is_of_missing_values
        if by_em and size < self.n_components_:
            raise ValueError(
                "truncate cannot reduce a PPCA that was fitted to rows with missing values, "
                "because the maximum-likelihood model with fewer components has other axes. Fit a "
                f"PPCA with n_components={size}."
            )
        values, left_out = self._kept_and_left_out()
        axes, mean = (a.astype(np.float64) for a in (self.axes_[:size], self.mean_))
        trace = float(values.sum()) + left_out
        noise = float(self.noise_variance_) if by_em else None
        self._store(Spectrum(values[:size], axes, trace, mean), self.mean_.dtype, noise)

    def _kept_and_left_out(self) -> tuple[Array, float]:
        """Eigenvalues of the covariance with 1/n (k,), and the sum of all others."""
        n, n_features = self.n_samples_, self.n_features_in_
        values = self.explained_variance_.astype(np.float64) * ((n - 1) / n)
        noise = float(self.noise_variance_)
        # A noise variance at its lower bound means that there is no noise.
        if noise <= 2 * noise_floor(float(values.sum()) / n_features, self.mean_):
            noise = 0.0
        return values, noise * (n_features - len(values))

    def _size_of_rule(self, rule: Literal["mle", "bic"] | float | None) -> int:
        """Size that n_components=rule chooses. The model may lack at most one component."""
        model = copy.copy(self)
        model.n_components = rule
        values, left_out = self._kept_and_left_out()
        if len(values) < min(self.n_samples_, self.n_features_in_):
            values = np.r_[values, left_out]
        return model._known_size(self.n_features_in_) or model._size_of(values)

    def _floored_gaussian(self) -> tuple[Array, float]:
        """Variances along the axes and noise variance of p(x)."""
        return self._variances, float(self.noise_variance_)

    def _n_free_parameters(self) -> int:
        if np.ndim(self.noise_variance_):
            return n_free_parameters_of_factors(self.n_features_in_, self.n_components_)
        return n_free_parameters(self.n_features_in_, self.n_components_)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(ppca_state(state))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
