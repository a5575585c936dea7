"""What estimators with a point for a code share: codes, scores, and sizes cut without refitting."""

import copy
import warnings
from abc import abstractmethod
from dataclasses import replace
from math import ceil
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skae._encoder_decoder import EncoderDecoder
from skae._inference.bounds import LogPrior, Proposal, best_proposal, bounds, some_rows
from skae._latent_paths import LatentPathsMixin
from skae._modules.deterministic import DeterministicArchitecture, DeterministicModule
from skae._nn.likelihoods import Likelihood, NoiseSums, WithNoise
from skae._training.data import Batch, Data
from skae._training.net import preserve_rng_state
from skae._utils.validation import Interval, StrOptions

Array = NDArray[Any]

# From how many rows the noise of the smaller sizes of a growing autoencoder is learned.
_PATH_ROWS = 4096
# Codes that vary by less than this, beside the one that varies most, stand still.
_STILL = 1e-6


def _orders_codes(model: "DeterministicAutoencoder") -> bool:
    fitted = getattr(model, "_architecture", None)
    if (model if fitted is None else fitted).latent_growth is None:
        raise AttributeError(
            "Codes are ordered by importance, and so can be cut, only with latent_growth="
            "'incremental' or 'nested'; given None."
        )
    return True


def _scores_data(model: "DeterministicAutoencoder") -> bool:
    if not model._has_code_density():
        raise AttributeError(
            "data_score_samples needs a prior that has a density: 'gaussian' or 'mixture'; given "
            f"prior={getattr(model, 'prior', None)!r}."
        )
    return True


def _is_perceptual(value: Any) -> bool:
    if len(value) != 2:
        return False
    network, weight = value
    return isinstance(network, nn.Module) and isinstance(weight, Real) and float(weight) >= 0


class DeterministicAutoencoder(LatentPathsMixin, EncoderDecoder):
    """An autoencoder of networks whose code is a point, or is used as one.

    Attributes
    ----------
    code_mean_ : ndarray of shape (n_components,)
        Mean of the training codes.
    code_covariance_ : ndarray of shape (n_components, n_components)
        Their covariance.
    """

    score_kind = "reconstruction"

    _architecture: DeterministicArchitecture
    code_mean_: Array
    code_covariance_: Array
    _proposal_rows: Array
    _proposal_tau: float | None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EncoderDecoder._parameter_constraints,
        "latent_growth": [StrOptions({"incremental", "nested"}), None],
        "growth_fraction": [Interval(Real, 0, 1, closed="both")],
        "perceptual": [tuple, None],
    }

    @abstractmethod
    def _make_module(self, generator: torch.Generator) -> DeterministicModule:
        """The network of `_architecture`, with weights drawn from the generator."""

    def _has_code_density(self) -> bool:
        """Whether the density of codes from which `sample` draws can be evaluated."""
        return True

    @abstractmethod
    def _log_code_density(self) -> LogPrior:
        """log p(z) of codes (..., n_components), as a function of tensors."""

    # -------------------------------------------------------------------- learning

    def _check_choices(self, n_features: int) -> None:
        super()._check_choices(n_features)
        if self.perceptual is not None and not _is_perceptual(self.perceptual):
            raise ValueError(
                f"perceptual={self.perceptual!r} must be a pair of a torch.nn.Module and a "
                "weight >= 0."
            )

    def _choices(self) -> dict[str, Any]:
        return {
            **super()._choices(),
            "latent_growth": self.latent_growth,
            "growth_epochs": ceil(self.growth_fraction * self.max_iter),
        }

    def _user_modules(self) -> tuple[Any, ...]:
        return (*super()._user_modules(), self.perceptual)

    def _module_parts(
        self, generator: torch.Generator, n_encoded: int | None = None
    ) -> tuple[nn.Module, nn.Module, Likelihood, Any, tuple[nn.Module, float] | None]:
        """What a point module is made of; its encoder has `n_encoded` outputs."""
        architecture = self._architecture
        own_encoder, own_decoder, pair = self._own[:3]
        encoder, decoder = architecture.make_networks(
            own_encoder, own_decoder, generator, n_encoded=n_encoded or architecture.n_codes
        )
        perceptual = None
        if pair is not None:
            network = copy.deepcopy(pair[0]).cpu().eval()
            perceptual = (network.requires_grad_(False), float(pair[1]))
        return encoder, decoder, architecture.make_likelihood(), architecture, perceptual

    def _new_module(self, seed: int) -> DeterministicModule:
        module: DeterministicModule = super()._new_module(seed)  # type: ignore[assignment]
        if module.perceptual:
            with preserve_rng_state():
                self._try_perceptual(module)
        return module

    def _try_perceptual(self, module: DeterministicModule) -> None:
        """Compare two rows of zeros by the perceptual network, to fail before training."""
        rows = torch.zeros(2, self._architecture.n_features)
        try:
            with torch.no_grad():
                module.feature_distance(module.perceptual[0][0], Batch(rows, rows), rows)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            shape = self._architecture.image_shape or (self._architecture.n_features,)
            raise ValueError(
                f"perceptual cannot take a batch of shape {(2, *shape)}: {error}"
            ) from error

    def _check_trained(self) -> None:
        n_open = int(self.net_.module_.gate.sum())
        if n_open < self.n_components_:
            warnings.warn(
                f"Training ended after {self.n_iter_} epochs with {n_open} of "
                f"{self.n_components_} codes open; the others are zero. Raise max_iter or lower "
                f"growth_fraction (now {self.growth_fraction}).",
                UserWarning,
                stacklevel=2,
            )

    def _first_epoch_to_stop(self) -> int:
        architecture = self._architecture
        return architecture.growth_epochs if architecture.latent_growth == "incremental" else 0

    def _learn_from_outputs(self, data: Data, share: float) -> Array:
        module = self.net_.module_
        k = self.n_components_
        rows = self._rows(data)
        codes = np.empty((len(rows), k), dtype=np.float32)
        path = self.__dict__.pop("_noise_path", None)
        noise = NoiseSums(module.likelihood)
        with self._inference():
            for part, batch in self._chunks(rows):
                z = module.encode(batch.x)
                noise.add(batch.y, module.decode(z), batch.weight, batch.seen)
                codes[part] = z.cpu().numpy()
        self._check_codes_are_finite(codes)
        noise.settle(share, self._noise_so_far() if share < 1 else None)
        mean = np.average(codes.astype(np.float64), axis=0, weights=data.weight)
        weight = np.ones(len(rows)) if data.weight is None else data.weight
        centred = codes - mean
        covariance = (centred.T * (weight / weight.sum())) @ centred
        if share < 1:
            step = mean - self.code_mean_
            mean = self.code_mean_ + share * step
            covariance = share * covariance + (1 - share) * (
                self.code_covariance_ + share * np.outer(step, step)
            )
        self.code_mean_, self.code_covariance_ = mean, covariance
        if self._architecture.latent_growth is not None:
            self._learn_path(data, codes, share, path if share < 1 else None)
        self._publish_noise()
        if self._has_code_density():
            # What `data_score_samples` chooses its proposal by, if it is asked for.
            self._proposal_rows, self._proposal_tau = some_rows(data.X), None
        return codes

    def _code_stds(self) -> NDArray[np.float64]:
        """Standard deviations of the codes; 0 of those that only rounding moves."""
        std = np.sqrt(np.maximum(np.diag(self.code_covariance_), 0.0)).astype(np.float64)
        return np.where(std > _STILL * std.max(), std, 0.0)

    def _learn_path(self, data: Data, codes: Array, share: float, before: Array | None) -> None:
        """Noise at every smaller size, for `truncate`; learned from some rows."""
        module = self.net_.module_
        if not isinstance(module.likelihood, WithNoise) or not module.likelihood.learned:
            return
        step = -(-len(codes) // _PATH_ROWS)
        weight = None if data.weight is None else data.weight[::step]
        rows = self._rows(Data(data.X[::step], weight))
        path = []
        with self._inference():
            kept = module.likelihood.variance.clone()
            for k in range(1, self.n_components_):
                noise = NoiseSums(module.likelihood)
                for part, batch in self._chunks(rows):
                    z = torch.from_numpy(codes[::step][part][:, :k]).to(rows.device)
                    noise.add(batch.y, module.decode(z), batch.weight, batch.seen)
                old = None if before is None else torch.tensor(before[k - 1]).to(rows.device)
                noise.settle(share, old)
                path.append(module.likelihood.variance.cpu().numpy().copy())
            module.likelihood.variance.copy_(kept)
        self._noise_path = np.array([*path, kept.cpu().numpy()])

    # ------------------------------------------------------ ordered codes

    @available_if(_orders_codes)
    def truncate(self, k: int) -> Self:
        """The model of the first k codes, without refitting.

        Parameters
        ----------
        k : int
            Number of codes to keep, from 1 to `n_components`.

        Returns
        -------
        truncated : estimator
            A fitted estimator with `n_components=k`; this one stays as it is.

        Raises
        ------
        AttributeError
            If the codes are not ordered (`latent_growth=None`).
        ValueError
            If there are fewer codes than k.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from skae import Autoencoder
        >>> X, _ = load_digits(return_X_y=True)
        >>> ae = Autoencoder(8, latent_growth="nested", max_iter=10, random_state=0).fit(X)
        >>> ae.truncate(3).transform(X).shape
        (1797, 3)
        """
        check_is_fitted(self)
        self._check_argument("k", k, [Interval(Integral, 1, self.n_components_, closed="both")])
        k = int(k)
        other = copy.copy(self).set_params(n_components=k)  # with a net of its own
        other.n_components_ = k
        other._architecture = replace(self._architecture, n_components=k)
        module = other.net_.module_
        module.architecture = other._architecture
        with torch.no_grad():
            module.gate[k:] = 0.0
            if "_noise_path" in self.__dict__:
                other._noise_path = self._noise_path[:k].copy()
                variance = torch.tensor(other._noise_path[-1])
                module.likelihood.variance.copy_(variance)
        other._proposal_tau = None
        other.code_mean_ = self.code_mean_[:k].copy()
        other.code_covariance_ = self.code_covariance_[:k, :k].copy()
        other._publish_noise()
        return other

    @available_if(_orders_codes)
    def reconstruction_path(self, X: ArrayLike) -> Array:
        """Reconstruction errors with the first 1, 2, ..., n_components codes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to reconstruct.

        Returns
        -------
        errors : ndarray of shape (n_components,)
            Squared error of a row, summed over its seen features and averaged over rows,
            in squared units of X.

        Raises
        ------
        AttributeError
            If the codes are not ordered (`latent_growth=None`).
        """
        rows = self._rows(Data(self._check_new_rows(X, "reconstruction_path")))
        module = self.net_.module_
        errors = np.zeros(self.n_components_)
        with self._inference():
            for _, batch in self._chunks(rows):
                z = module.encode(batch.x)
                for k in range(1, self.n_components_ + 1):
                    error = (batch.y - module.likelihood.mean(module.decode(z[:, :k]))).square()
                    if batch.seen is not None:
                        error = error * batch.seen
                    errors[k - 1] += float(error.sum(1).cpu().double().sum())
        return self._architecture.target_scale**2 * errors / len(rows)

    # -------------------------------------------------------------- scores of the data

    @available_if(_scores_data)
    def data_score_samples(self, X: ArrayLike, n_draws: int = 256) -> Array:
        """Score rows by a lower bound on log p(x), which other models' scores compare with.

        log p(x) is the log of the integral of p(z) p(x|z), with the p(z) that `sample` draws
        from. Its importance-weighted bound takes draws around the code of the row, from
        N(f(x), tau² diag(s²)) with the standard deviations s of the codes and a tau that was
        chosen on training rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score.
        n_draws : int, default=256
            Draws for each row: the more there are, the tighter is the bound.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Nats per row.

        Raises
        ------
        AttributeError
            If codes are sampled from what has no density.
        ValueError
            If `n_draws` is not a positive integer.

        References
        ----------
        Y. Burda, R. Grosse and R. Salakhutdinov (2016). Importance weighted autoencoders.
        ICLR. :doi:`10.48550/arXiv.1509.00519`

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from skae import Autoencoder
        >>> X, _ = load_digits(return_X_y=True)
        >>> ae = Autoencoder(4, max_iter=20, random_state=0).fit(X)
        >>> bool(ae.data_score_samples(X).mean() < ae.score(X))
        True
        """
        check_is_fitted(self)
        self._check_argument("n_draws", n_draws, [Interval(Integral, 1, None, closed="left")])
        rows = self._check_new_rows(X, "data_score_samples")
        self._check_range(rows)
        std, log_prior = self._code_stds(), self._log_code_density()
        if self._proposal_tau is None:
            self._proposal_tau = best_proposal(self, self._proposal_rows, log_prior, std).tau
        return bounds(self, rows, log_prior, Proposal(std, self._proposal_tau), int(n_draws))

    # ------------------------------------------------------------------- the hooks

    def _encode(self, X: Array) -> Array:
        module = self.net_.module_
        return self._map_rows(Data(X), lambda batch: module.encode(batch.x), self.n_components_)

    def _decode(self, Z: Array) -> Array:
        module = self.net_.module_
        return self._map_codes(Z, lambda z: module.likelihood.mean(module.decode(z)))

    def _log_prob(self, X: Array) -> Array:
        self._check_range(X)
        module = self.net_.module_
        log_scale = self._architecture.log_scale

        def compute(batch: Batch) -> Tensor:
            output = module.decode(module.encode(batch.x))
            log_prob = module.likelihood.row_log_prob(batch.y, output, batch.seen)
            n_seen = batch.y.shape[1] if batch.seen is None else batch.seen.sum(1)
            return log_prob - n_seen * log_scale

        return self._map_rows(Data(X), compute)

    def _generate(self, Z: Array, rng: np.random.RandomState, noise: bool) -> Array:
        """Draws from p(x|z), or its means."""
        if not noise:
            return self._decode(Z)
        module, generator = self.net_.module_, self._torch_generator(rng)
        return self._map_codes(Z, lambda z: module.likelihood.draw(module.decode(z), generator))
