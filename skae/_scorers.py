"""Scorers: functions of a fitted estimator and rows, which `skae.metrics` publishes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skae._utils.metric_arrays import check_in_range, check_weight
from skae._utils.reconstructions import squared_deviations, squared_errors
from skae._utils.row_likelihoods import row_log_likelihoods
from skae._utils.scorer import Scorer


@Scorer
def reconstruction_error_scorer(
    estimator: Any, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None
) -> float:
    """Score a fitted estimator by its negated reconstruction error, for `scoring` of searches.

    The score is `-reconstruction_error(X, X_reconstructed)`: the squared error, summed over the
    observed values of a row and averaged over rows, with a minus, so that greater is better. Its
    unit is the squared unit of `X`. The error of most models decreases with every further code,
    also on held-out rows. Compare models with equal numbers of codes by this score.

    Parameters
    ----------
    estimator : estimator object
        A fitted estimator with `reconstruct`, as those of skae, or with `transform` and
        `inverse_transform`, such as PCA, TruncatedSVD, NMF, or KernelPCA with
        `fit_inverse_transform=True`; or a Pipeline that ends in one. The other steps of a Pipeline
        are inverted, so that the error is in units of `X` for every scaler.
    X : array-like or sparse matrix of shape (n_samples, n_features)
        Rows that `estimator` accepts. NaN marks a missing value, which is left out of the sum.
    y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
        Targets, which a conditional VAE reads; ignored by all others.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows in the average. None weights all rows equally.

    Returns
    -------
    score : float
        Negated squared error per row, at most 0.

    Raises
    ------
    ValueError
        If the estimator cannot reconstruct rows, if a step of a Pipeline cannot be inverted, if
        columns are categories, or if `X` has values that are not allowed.

    Notes
    -----
    Imputers of scikit-learn in a Pipeline need no inverse: the error counts observed values only.

    To pass `sample_weight` to the scorer in a search, enable the metadata routing of scikit-learn,
    and use `reconstruction_error_scorer.set_score_request(sample_weight=True)`, which returns a
    scorer that requests the weights.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.model_selection import KFold, cross_val_score
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skae.metrics import reconstruction_error_scorer
    >>> X, _ = load_iris(return_X_y=True)
    >>> folds = KFold(5, shuffle=True, random_state=0)
    >>> for model in (PCA(2), make_pipeline(StandardScaler(), PCA(2))):
    ...     scores = cross_val_score(model, X, scoring=reconstruction_error_scorer, cv=folds)
    ...     print(f"{scores.mean():.3f} square centimetres")
    -0.105 square centimetres
    -0.148 square centimetres
    """
    errors = squared_errors(estimator, X, y)
    weight = None if sample_weight is None else check_weight(sample_weight, len(errors))
    with np.errstate(over="ignore"):  # the result is checked below
        error = float(np.average(errors, weights=weight))
    check_in_range(error, "squared error", "X")
    return -error


@Scorer
def explained_variance_scorer(
    estimator: Any, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None
) -> float:
    r"""Score a fitted estimator by the share of the variance of rows that it reconstructs.

    The score is

    .. math:: 1 - \frac{\sum_i w_i |x_i - \hat{x}_i|^2}{\sum_i w_i |x_i - \bar{x}|^2}

    where :math:`\hat{x}_i` is the reconstruction of row i, :math:`w_i` its weight, and
    :math:`\bar{x}` the mean of the rows that are scored. Sums are over observed values. It is the
    `r2_score` of scikit-learn with `multioutput="variance_weighted"`. For PCA and its training
    rows, it is the sum of `explained_variance_ratio_`. It has no unit; greater is better. As the
    reconstruction error, it ranks models with equal numbers of codes.

    Parameters
    ----------
    estimator : estimator object
        A fitted estimator or Pipeline, as for `reconstruction_error_scorer`.
    X : array-like or sparse matrix of shape (n_samples, n_features)
        Rows that `estimator` accepts. NaN marks a missing value, which is left out of the sums.
    y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
        Targets, which a conditional VAE reads; ignored by all others.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows. None weights all rows equally.

    Returns
    -------
    score : float
        Share of the variance, at most 1. It is negative if the mean of the rows has a smaller error
        than the reconstructions.

    Raises
    ------
    ValueError
        For the same reasons as `reconstruction_error_scorer`, and if the rows do not vary.

    Notes
    -----
    To pass `sample_weight` to the scorer in a search, enable the metadata routing of scikit-learn,
    and use `explained_variance_scorer.set_score_request(sample_weight=True)`, which returns a
    scorer that requests the weights.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import PCA
    >>> from skae.metrics import explained_variance_scorer
    >>> X, _ = load_digits(return_X_y=True)
    >>> for k in (4, 16):
    ...     share = explained_variance_scorer(PCA(k).fit(X[:1000]), X[1000:])
    ...     print(f"{k} codes: {share:.2f} of the variance of new rows")
    4 codes: 0.47 of the variance of new rows
    16 codes: 0.83 of the variance of new rows
    """
    errors = squared_errors(estimator, X, y)
    weight = None if sample_weight is None else check_weight(sample_weight, len(errors))
    with np.errstate(over="ignore"):  # the results are checked below
        error = float(np.average(errors, weights=weight))
        total = float(np.average(squared_deviations(X, weight), weights=weight))
    check_in_range(error + total, "squared error", "X")
    if total == 0:
        raise ValueError(
            "All rows of X are equal, so that there is no variance to explain. Give rows that "
            "differ, or use reconstruction_error_scorer."
        )
    return 1 - error / total


@Scorer
def log_likelihood_scorer(
    estimator: Any, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None
) -> float:
    """Score a fitted estimator by the mean log-likelihood of rows, and refuse all other scores.

    The score is the mean of log p(x), or of a lower bound on it, in nats per row and in units of
    `X`. Scores of estimators of skae with the `score_kind` "log_likelihood" or "lower_bound", of
    PCA and FactorAnalysis of scikit-learn, and of its density estimators, can be compared with each
    other. For all others a ValueError says why their scores may not be compared with these, and
    what can be used instead: a reconstruction score always increases with the number of codes, and
    a density of codes depends on their scale.

    Parameters
    ----------
    estimator : estimator object
        A fitted estimator, or a Pipeline that ends in one. Steps before the last may be
        StandardScaler, MinMaxScaler, MaxAbsScaler and RobustScaler. The logarithms of their scales
        are added, so that the score is the density in units of `X` for every scaler.
    X : array-like or sparse matrix of shape (n_samples, n_features)
        Rows that `estimator` accepts. If NaN is allowed, the score is the density of the observed
        values.
    y : Ignored
        Present for API consistency. A conditional VAE that was fitted with labels is scored by
        log p(x), the logarithm of the sum of p(x, y) over all labels y.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows in the mean. None weights all rows equally.

    Returns
    -------
    score : float
        Nats per row.

    Raises
    ------
    ValueError
        If the scores of the estimator are of another kind, or of an unknown one. If a step before
        the last of a Pipeline is none of those above. If a VAE is conditional on numbers, because
        its scores are log p(x|y). If values between 0 and 1 have `likelihood="bernoulli"`, because
        their scores are expected log-probabilities.

    Notes
    -----
    By default, searches catch errors of a scorer: the score of this candidate becomes NaN, it is
    ranked last, and a warning "Scoring failed" shows the message. If the scores of all candidates
    are NaN, searches take the first one. With `error_score="raise"` the first error ends the
    search.

    Densities, as of the Gaussian, Laplace and continuous Bernoulli likelihoods, must not be
    compared with probabilities, as of the Bernoulli, Poisson and categorical likelihoods. The
    scorer sees one candidate at a time, and cannot refuse this comparison.

    To pass `sample_weight` to the scorer in a search, enable the metadata routing of scikit-learn,
    and use `log_likelihood_scorer.set_score_request(sample_weight=True)`, which returns a scorer
    that requests the weights.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import MaxAbsScaler
    >>> from skae import PPCA, Autoencoder
    >>> from skae.metrics import log_likelihood_scorer
    >>> X, _ = load_digits(return_X_y=True)
    >>> for model in (PCA(8), PPCA(8), make_pipeline(MaxAbsScaler(), PPCA(8))):
    ...     print(f"{log_likelihood_scorer(model.fit(X[::2]), X[1::2]):.1f} nats per row")
    -164.1 nats per row
    -164.1 nats per row
    -136.6 nats per row
    >>> ae = Autoencoder(8, max_iter=2, random_state=0).fit(X[::2])
    >>> log_likelihood_scorer(ae, X[1::2])
    Traceback (most recent call last):
    ValueError: The score_kind of Autoencoder is 'reconstruction': its scores are log p(x|z), ...
    """
    nats = row_log_likelihoods(estimator, X)
    weight = None if sample_weight is None else check_weight(sample_weight, len(nats))
    return float(np.average(nats, weights=weight))
