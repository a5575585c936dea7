"""Autoencoders whose code of a row is a point: codes, scores, and smaller models."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator
from math import ceil
from numbers import Real
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import gen_batches
from torch import Tensor, nn

from skae._data_scores import DataScoresMixin
from skae._encoder_decoder import EncoderDecoder
from skae._inference.bounds import (
    LogPrior,
    Proposal,
    RowLikelihood,
)
from skae._inference.proposal_width import looks_again, proposal_width
from skae._latent_paths import LatentPathsMixin
from skae._latent_size import LATENT_SIZE_CONSTRAINTS, LatentSizeMixin
from skae._linear.running import running_covariance
from skae._local_linear import LocalLinearMixin
from skae._modules.deterministic import DeterministicArchitecture, DeterministicModule
from skae._nn.likelihood_base import Likelihood
from skae._nn.likelihoods import NoiseSums, WithNoise
from skae._ordered_codes import PATH_ROWS, OrderedCodesMixin, orders_codes
from skae._training.data import Batch, Data, Dataset
from skae._training.random_state import preserve_rng_state
from skae._training.trainer import TrainingOptions, batches
from skae._utils.availability import silent_available_if
from skae._utils.memory import is_lack_of_memory
from skae._utils.sparse_rows import Rows
from skae._utils.validation import Interval, StrOptions
from skae._utils.warning import warn

Array = NDArray[Any]

# Codes with a standard deviation below this fraction of the largest one count as constant.
_STILL = 1e-6
# Number of values of codes that are copied to float64 at once.
_CODES_AT_ONCE = 2**22


def _is_perceptual(value: Any) -> bool:
    if len(value) != 2:
        return False
    network, weight = value
    return isinstance(network, nn.Module) and isinstance(weight, Real) and float(weight) >= 0


# Constraints of the additional parameters of these estimators.
DETERMINISTIC_CONSTRAINTS: dict[str, list[Any]] = {
    **LATENT_SIZE_CONSTRAINTS,
    "latent_growth": [StrOptions({"incremental", "nested"}), None],
    "growth_fraction": [Interval(Real, 0, 1, closed="both")],
    "perceptual": [tuple, None],
}


def _moments(codes: Array, weight: Array | None) -> tuple[Array, Array]:
    """Mean and covariance (1/n) of codes in float64, by parts, of which copies are made."""
    w = np.ones(len(codes)) if weight is None else weight
    w = w / w.sum()
    parts = list(gen_batches(len(codes), max(1, _CODES_AT_ONCE // codes.shape[1])))
    mean = sum(w[part] @ codes[part].astype(np.float64) for part in parts)
    covariance = np.zeros((codes.shape[1], codes.shape[1]))
    for part in parts:
        centred = codes[part] - mean
        covariance += (centred.T * w[part]) @ centred
    return np.asarray(mean), covariance


class DeterministicAutoencoder(
    DataScoresMixin,
    LatentPathsMixin,
    LocalLinearMixin,
    OrderedCodesMixin,
    LatentSizeMixin,
    EncoderDecoder,
):
    """An autoencoder of two networks whose code of a row is a point.

    Attributes
    ----------
    code_mean_ : ndarray of shape (n_components,)
        Mean of the training codes.
    code_covariance_ : ndarray of shape (n_components, n_components)
        Covariance of the training codes.
    """

    score_kind = "reconstruction"

    _state_shapes = EncoderDecoder._state_shapes | {
        "code_mean_": ("n_components_",),
        "code_covariance_": ("n_components_", "n_components_"),
    }

    _architecture: DeterministicArchitecture
    latent_growth: Literal["incremental", "nested"] | None
    perceptual: tuple[nn.Module, float] | None
    growth_fraction: float
    code_mean_: Array
    code_covariance_: Array
    _proposal_tau: float

    def _has_code_density(self) -> bool:
        """Whether the distribution of codes that `sample` uses has a known density."""
        return True

    @abstractmethod
    def _log_code_density(self, k: int) -> LogPrior:
        """log p(z) of the first k codes, as a function of tensors (..., k)."""

    # -------------------------------------------------------------------- learning

    def _fields(self, n_rows: int) -> dict[str, Any]:
        if self.perceptual is not None and not _is_perceptual(self.perceptual):
            raise ValueError(
                f"perceptual={self.perceptual!r} must be a pair of a torch.nn.Module and a "
                "weight that is not negative."
            )
        n_epochs = TrainingOptions.of(self).n_epochs(n_rows)
        grows = {"growth_epochs": ceil(self.growth_fraction * n_epochs)}
        return {**super()._fields(n_rows), **grows}

    def _module_parts(
        self, generator: torch.Generator, n_encoded: int | None = None
    ) -> tuple[nn.Module, nn.Module, Likelihood, Any, tuple[nn.Module, float] | None]:
        """Arguments of a deterministic module whose encoder has `n_encoded` outputs."""
        architecture = self._architecture
        own_encoder, own_decoder, pair = self._user_modules[:3]
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
        """Apply the perceptual network to rows of zeros, to raise errors before training."""
        rows = torch.zeros(2, self._architecture.n_features)
        try:
            with torch.no_grad():
                module.feature_distance(module.perceptual[0][0], Batch(rows, rows), rows)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            if is_lack_of_memory(error):
                raise
            shape = self._architecture.image_shape or (self._architecture.n_features,)
            raise ValueError(
                f"The network of perceptual cannot process a batch of shape {(2, *shape)}: {error}"
            ) from error

    def _check_trained(self, rows: Dataset) -> None:
        super()._check_trained(rows)
        n_open = int(self._trainer.module.gate.sum())
        if n_open < self.n_components_:
            warn(
                f"Training ended after {self.n_iter_} epochs, before all codes were added: "
                f"{n_open} of {self.n_components_} codes are in use, and the others are zero. "
                f"Raise max_iter or lower growth_fraction (now {self.growth_fraction})."
            )

    def _by_trial(self) -> bool:
        return self.latent_growth != "incremental" or self.growth_fraction == 0

    def _first_epoch_to_stop(self) -> int:
        architecture = self._architecture
        return architecture.growth_epochs if architecture.latent_growth == "incremental" else 0

    def _learn_from_outputs(self, rows: Dataset, weight: float) -> Array:
        module, data = self._trainer.module, rows.data
        k = self.n_components_
        codes = np.empty((len(rows), k), dtype=np.float32)
        path = self.__dict__.pop("_noise_path", None)
        noise = NoiseSums(module.likelihood)
        with self._trainer.inference(len(rows)):
            for part, batch in batches(rows):
                z = module.encode(batch.x)
                noise.add(batch.y, module.decode(z), batch.weight, batch.seen)
                codes[part] = z.cpu().numpy()
        self._check_codes_are_finite(codes)
        noise.settle(weight, self._noise_so_far() if weight < 1 else None)
        now = _moments(codes, data.weight)
        before = (self.code_mean_, self.code_covariance_) if weight < 1 else None
        self.code_mean_, self.code_covariance_ = running_covariance(before, now, weight)
        if self._architecture.latent_growth is not None:
            self._learn_path(data, codes, weight, path if weight < 1 else None)
        self._publish_noise()
        if self._has_code_density() and (weight == 1 or looks_again(self._trainer.n_epochs)):
            self._learn_proposal(data.X)
        return codes

    def _moments_of_codes(self) -> tuple[Array, Array]:
        return self.code_mean_, self.code_covariance_

    def _code_stds(self, k: int) -> NDArray[np.float64]:
        """Standard deviations of the first k codes; 0 for those that vary only by rounding."""
        variance = np.diag(self.code_covariance_)[:k]
        std = np.sqrt(np.maximum(variance, 0.0)).astype(np.float64)
        return np.where(std > _STILL * std.max(), std, 0.0)

    def _learn_path(self, data: Data, codes: Array, weight: float, before: Array | None) -> None:
        """Learn the noise variance of every smaller size from a subset of the rows."""
        module = self._trainer.module
        if not isinstance(module.likelihood, WithNoise) or not module.likelihood.learned:
            return
        step = -(-len(codes) // PATH_ROWS)
        rows = self._dataset(
            Data(data.X[::step], None if data.weight is None else data.weight[::step])
        )

        def explained_by(k: int) -> Iterator[tuple[Any, ...]]:
            for part, batch in batches(rows):
                z = torch.from_numpy(codes[::step][part][:, :k]).to(rows.device)
                yield batch.y, module.decode(z), batch.weight, batch.seen

        self._learn_noise_path(weight, before, explained_by)

    # ------------------------------------------------------------- scores of the data

    def _check_scores_data(self) -> None:
        if not self._has_code_density():
            raise AttributeError(
                "data_score_samples needs a prior with a known density, 'gaussian' or 'mixture'; "
                f"given prior={getattr(self, 'prior', None)!r}."
            )

    def _row_likelihood(self) -> RowLikelihood:
        return RowLikelihood(self)

    def _importance_sampling(self) -> tuple[RowLikelihood, Proposal, LogPrior]:
        k = self.n_components_
        proposal = Proposal(self._code_stds(k), self._proposal_tau)
        return self._row_likelihood(), proposal, self._log_code_density(k)

    def _learn_proposal(self, X: Rows) -> None:
        """Choose the width of the proposal; for ordered codes, one width for each size."""
        k = self.n_components_
        sizes = [k] if self._architecture.latent_growth is None else range(1, k + 1)
        likelihood = self._trainer.module.likelihood
        noise = vars(self).get("_noise_path")
        taus = []
        for size in sizes:
            if noise is not None:
                likelihood.variance.copy_(torch.tensor(noise[size - 1]))
            proposal = Proposal(self._code_stds(size), 1.0)
            explains, log_prior = RowLikelihood(self, size), self._log_code_density(size)
            taus.append(proposal_width(explains, X, log_prior, proposal))
        self._proposal_tau = taus[-1]
        if len(taus) > 1:
            self._tau_path = np.array(taus)

    # ------------------------------------------------------ ordered codes

    def _keep_codes(self, whole: Self, k: int) -> None:
        self._trainer.module.gate[k:] = 0.0
        if "_tau_path" in vars(whole):
            self._tau_path, self._proposal_tau = whole._tau_path[:k], float(whole._tau_path[k - 1])
        self.code_mean_ = whole.code_mean_[:k].copy()
        self.code_covariance_ = whole.code_covariance_[:k, :k].copy()

    @silent_available_if(orders_codes)
    def reconstruction_path(self, X: ArrayLike) -> Array:
        """Reconstruction errors of the models with 1, 2, ..., n_components codes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to reconstruct.

        Returns
        -------
        errors : ndarray of shape (n_components,)
            Squared error in squared units of X, summed over the observed features of a row and
            averaged over rows. For a categorical column it is the sum over its levels of the
            squared difference between the indicator of the level (0 or 1) and its predicted
            probability.

        Raises
        ------
        AttributeError
            If the codes are not ordered (`latent_growth=None`).
        """
        rows = self._dataset(Data(self._check_new_rows(X, "reconstruction_path")))
        module = self._trainer.module
        errors = np.zeros(self.n_components_)
        scale = self._architecture.target_scale
        with self._trainer.inference(len(rows)):
            for _, batch in batches(rows):
                z = module.encode(batch.x)
                for k in range(1, self.n_components_ + 1):
                    error = (batch.y - module.likelihood.mean(module.decode(z[:, :k]))).square()
                    if batch.seen is not None:
                        error = error * batch.seen
                    found = error.sum(0).cpu().double().numpy()
                    errors[k - 1] += (scale**2 * found).sum()
        return errors / len(rows)

    # ------------------------------------------------------------------- the hooks

    def _encode(self, X: Rows) -> Array:
        module = self._trainer.module
        return self._map_rows(Data(X), lambda batch: module.encode(batch.x), self.n_components_)

    def _decode(self, Z: Array) -> Array:
        return self._map_codes(Z, self._mean_rows)

    def _mean_rows(self, z: Tensor) -> Tensor:
        module = self._trainer.module
        mean: Tensor = module.likelihood.mean(module.decode(z))
        return mean

    def _log_prob(self, X: Rows) -> Array:
        self._check_range(X)
        module = self._trainer.module

        def compute(batch: Batch) -> Tensor:
            output = module.decode(module.encode(batch.x))
            log_prob: Tensor = module.likelihood.row_log_given(batch.y, output, batch.seen)
            return log_prob - module.log_units(batch)

        return self._map_rows(Data(X), compute)

    def _column_scores(self, data: Data) -> Array:
        module = self._trainer.module

        def compute(batch: Batch) -> Tensor:
            nats: Tensor = module.column_nats(batch, module.decode(module.encode(batch.x)))
            return nats

        return self._map_rows(data, compute, self.n_features_in_)

    def _generate(self, Z: Array, rng: np.random.RandomState, noise: bool) -> Array:
        """Draws from p(x|z), or with noise=False its means."""
        if not noise:
            return self._decode(Z)
        module, generator = self._trainer.module, self._trainer.generator(rng)
        return self._map_codes(Z, lambda z: module.likelihood.draw(module.decode(z), generator))

    # ---------------------------------------------------------------------------- files

    def __setstate__(self, state: dict[str, Any]) -> None:
        rows = state.get("_proposal_rows")  # in files of earlier versions
        super().__setstate__({n: value for n, value in state.items() if n != "_proposal_rows"})
        if rows is not None and self._proposal_tau is None:
            self._learn_proposal(rows)
