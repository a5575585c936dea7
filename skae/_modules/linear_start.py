"""Encoders and decoders that are initialised as PCA or probabilistic PCA.

References
----------
M. E. Tipping and C. M. Bishop (1999). Probabilistic principal component analysis.
J. R. Stat. Soc. B 61(3), 611-622. :doi:`10.1111/1467-9868.00196`
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skae._modules.architecture import EncoderDecoderArchitecture
from skae._nn.likelihood_base import Likelihood
from skae._nn.likelihoods import NoiseSums, WithNoise
from skae._nn.linear_maps import AffineMap, begin_as, has_exact_pairs
from skae._nn.networks import TiedDecoder
from skae._training.data import Batch

# Axes with a smaller fraction of the variance are not accurate in float32.
_LEAST_SHARE = 1e-9
# Limits of the smallest learned noise variance, as fractions of the mean variance, and this
# variance as a fraction of the linear model's noise. Less noise would mean that the network
# overfits.
LOWEST_FLOOR, HIGHEST_FLOOR, _FLOOR_OF_NOISE = 1e-8, 1e-4, 0.1
# Factor of the random weights of units that do not represent the linear map. Their output weights
# are zero at first; with larger activations, the steps of these weights are larger, and disturb the
# map more. This value trained best of those that were tried.
_QUIET = 0.35
# Number of steps of L-BFGS, and precision of the Gaussian prior on the loadings, if the best linear
# map has no closed form.
_LOADING_STEPS, _RIDGE = 20, 1.0


class Effects(NamedTuple):
    """Linear effects of the condition on rows: sum_i deviations[i] u_i axes[i].

    The scores u = weight (condition - center) are uncorrelated and have variance one. The axes are
    orthonormal.
    """

    center: NDArray[np.float64]  # (n_conditions,)
    weight: NDArray[np.float64]  # (r, n_conditions)
    axes: NDArray[np.float64]  # (r, D)
    deviations: NDArray[np.float64]  # (r,)

    def of(self, condition: NDArray[Any]) -> NDArray[np.float64]:
        """Return the effects of conditions (n_rows, n_conditions), (n_rows, D)."""
        scores = (condition - self.center) @ self.weight.T
        found: NDArray[np.float64] = (scores * self.deviations) @ self.axes
        return found


class PrincipalModel(NamedTuple):
    """PPCA of rows: mean (D,), axes (k, D), variances along them (k,) and residual variances.

    It also contains the variances of the features (D,). With `effects`, all variances are those of
    the rows without these effects.
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    variances: NDArray[np.float64]
    noise_variance: float
    feature_variances: NDArray[np.float64]
    explains_all: bool  # if there are as many components as the rank: the residual is rounding
    effects: Effects | None = None

    @property
    def mean_variance(self) -> float:
        """Mean variance of the features, including that of the effects."""
        variance = float(self.feature_variances.mean())
        if self.effects is None:
            return variance
        return variance + float(np.square(self.effects.deviations).sum()) / len(self.mean)

    @property
    def information(self) -> float:
        """Information of the codes about the rows without effects, in nats per row."""
        noise = max(self.noise_variance, LOWEST_FLOOR)
        return 0.5 * float(np.log(self.variances.clip(min=noise) / noise).sum())

    @property
    def bound(self) -> float:
        """Mean bound on the log density of rows, given their condition, up to a constant.

        The encoder does not read the condition, so that effects along the axes shift the codes and
        increase the divergence from the prior.
        """
        n_left = len(self.mean) - len(self.variances)
        noise = max(self.noise_variance, LOWEST_FLOOR)
        variances = self.variances.clip(min=noise)
        likelihood = np.log(variances).sum() + n_left * np.log(noise)
        if self.effects is None:
            return -0.5 * float(likelihood)
        along = np.square((self.axes @ self.effects.axes.T) * self.effects.deviations).sum(axis=1)
        divergence = ((variances - noise) / variances**2 * along).sum()
        return -0.5 * float(likelihood + divergence)

    def noise_floor(self, per_feature: bool) -> float:
        """Return the smallest learned noise variance, relative to the mean variance of features."""
        noise = self.noise_variance
        if per_feature:
            left = self.feature_variances - self.variances @ self.axes**2
            varying = self.feature_variances > 0
            noise = float(left[varying].min()) if varying.any() else 0.0
        if self.explains_all:
            return HIGHEST_FLOOR
        share = noise / self.mean_variance
        return float(np.clip(_FLOOR_OF_NOISE * share, LOWEST_FLOOR, HIGHEST_FLOOR))


class LinearCodes(NamedTuple):
    """Positions of the linear codes among the inputs of the decoder, and their meaning.

    A row is the mean plus, along axis i, loading[i] times the difference of code `place[i]` and
    shift[i]. `spread` is the standard deviation of the codes, and `within` that of the numbers that
    represent them in the decoder. The random weights of the decoder's other units are multiplied by
    `others`.
    """

    place: Tensor
    shift: Tensor
    loading: Tensor
    spread: Tensor
    within: Tensor
    others: float = _QUIET


class LinearStart:
    """Initialises networks from a principal model.

    Parameters
    ----------
    model : PrincipalModel
        The model, in the units of the network.
    architecture : EncoderDecoderArchitecture
        Architecture of the network.
    batch : Batch
        Rows from which loadings are learned if they have no closed form.
    generator : torch.Generator
        Generator that draws codes.
    rank : int, default=None
        Largest rank of linear maps that the encoder represents; None for any rank.
    """

    def __init__(
        self,
        model: PrincipalModel,
        architecture: EncoderDecoderArchitecture,
        batch: Batch,
        generator: torch.Generator,
        rank: int | None = None,
    ) -> None:
        self.architecture, self.batch, self.generator = architecture, batch, generator
        self.rank = rank
        kept = model.variances > _LEAST_SHARE * model.mean_variance * len(model.mean)
        self.axes = torch.tensor(model.axes[kept])
        self.variances = torch.tensor(model.variances[kept])
        self.feature_variances = torch.tensor(model.feature_variances)
        self.mean, self.effects = torch.tensor(model.mean), model.effects
        share = max(model.noise_variance, LOWEST_FLOOR)
        self.noise = HIGHEST_FLOOR if model.explains_all else share

    def __len__(self) -> int:
        """Return the number of linear codes."""
        return len(self.axes)

    @property
    def holds_exactly(self) -> bool:
        """Whether the layers represent numbers of any size exactly."""
        return has_exact_pairs(self.architecture.activation)

    @property
    def noise_of_codes(self) -> float:
        """The noise variance of p(z|x): a fixed one, or that of the model."""
        architecture, given = self.architecture, self.architecture.noise_variance
        if not architecture.rescaled or isinstance(given, str):
            return self.noise
        return float(given) / float(architecture.scale) ** 2

    @property
    def deviations(self) -> Tensor:
        """Standard deviations of the scores."""
        return self.variances.sqrt()

    def draws(self, n_codes: int) -> Tensor:
        """Draw standard normal numbers for the codes of the batch."""
        device = self.batch.x.device
        return torch.randn((len(self.batch.x), n_codes), generator=self.generator, device=device)

    def posterior_log_variances(self, n_codes: int) -> Tensor:
        """Return log variances of p(z|x) for codes of prior variance one; 0 for other codes."""
        found = torch.zeros(n_codes, dtype=torch.float64)
        found[: len(self)] = (self.noise_of_codes / self.variances).clamp(max=1.0).log()
        return found

    def residual_variances(self, explained: Tensor) -> Tensor:
        """Return the residual variance of every feature, given the explained variances."""
        return self.feature_variances - explained @ self.axes.square()

    def set_encoder(
        self,
        encoder: nn.Module,
        place: Tensor,
        outputs: AffineMap,
        *,
        whitened: bool = True,
        of_total: Tensor | None = None,
    ) -> None:
        """Initialise the outputs of an encoder at these places as this map of the scores.

        The scores have variance one if `whitened`, and otherwise the variances along their axes.
        `of_total` are the slopes of the outputs in the log total of counts, if the encoder reads
        it.
        """
        spread = torch.ones_like(self.deviations) if whitened else self.deviations
        to_scores = self.axes * (spread / self.deviations)[:, None]
        bias = -to_scores @ self.mean
        if self.architecture.with_mask:  # missing values are read as the mean of the model
            columns, of_mask = self.architecture.columns, -to_scores * self.mean
            of_mask = of_mask if columns is None else columns.total(of_mask)
            to_scores, bias = torch.cat([to_scores, of_mask], 1), bias.zero_()
        total_spread, rank = self.architecture.total_spread, self.rank
        if total_spread is not None:
            to_scores = nn.functional.pad(to_scores, (0, 1))
            if of_total is not None and (rank is None or rank > len(spread)):
                reads_total = torch.zeros_like(to_scores[:1])
                reads_total[0, -1] = 1.0
                to_scores = torch.cat([to_scores, reads_total])
                bias, spread = (
                    nn.functional.pad(bias, (0, 1)),
                    nn.functional.pad(spread, (0, 1), value=1.0),
                )
                slopes = (total_spread * of_total.double())[:, None]
                outputs = AffineMap(torch.cat([outputs.weight, slopes], 1), outputs.bias)
        begin_as(
            encoder,
            AffineMap(to_scores, bias),
            outputs,
            outputs=place,
            spread=spread,
            others=_QUIET,
            activation=self.architecture.activation,
        )

    def set_decoder(
        self, module: Any, codes: LinearCodes, draw: Callable[[Tensor], Tensor]
    ) -> None:
        """Initialise a decoder as the map of the codes, which `draw` computes.

        It also adds the effects of the condition, which it reads after the codes.
        """
        if isinstance(module.decoder, TiedDecoder):
            module.decoder.biases[-1].data.copy_(self.mean)
            return
        architecture, n = self.architecture, len(self)
        gain = codes.within / codes.spread
        select = torch.zeros(n, architecture.n_decoded, dtype=torch.float64)
        select[torch.arange(n), codes.place] = gain
        of_condition, effects = self._effects()
        r = len(of_condition.weight)
        beside = torch.zeros(r, architecture.n_code_numbers, dtype=torch.float64)
        select = torch.cat([select, torch.cat([beside, of_condition.weight], 1)])
        # The codes contain a part of the effects, unless their axes are orthogonal to these.
        share = codes.loading.square() / self.variances
        effects = effects - self.axes.T @ (share[:, None] * (self.axes @ effects))
        known = torch.cat([self.axes.T * codes.loading, effects], 1)
        if architecture.rescaled:
            loadings = AffineMap(known, self.mean)
        else:
            z = draw(self.batch.x).cpu().double()[:, codes.place]
            z = torch.cat([(z - codes.shift) / codes.spread, self._scores_of(of_condition)], 1)
            loadings = self._learned_loadings(module, z)
            spread = torch.cat([codes.spread, codes.spread.new_ones(r)])
            loadings = AffineMap(loadings.weight / spread, loadings.bias)
            located = architecture.located
            if located.any():  # for these columns the best map is known
                loadings.weight[located] = known[located]
                loadings.bias[located] = self.mean[located]
        begin_as(
            module.decoder,
            AffineMap(select, torch.cat([-codes.shift * gain, of_condition.bias])),
            AffineMap(loadings.weight / torch.cat([gain, gain.new_ones(r)]), loadings.bias),
            outputs=torch.arange(architecture.n_outputs),
            spread=torch.cat([codes.within, codes.within.new_ones(r)]),
            others=codes.others,
            activation=architecture.activation,
        )

    def _effects(self) -> tuple[AffineMap, Tensor]:
        """Return the map from the condition to r scores, and the effects of these, (D, r)."""
        n_conditions, n_features = self.architecture.n_conditions, len(self.mean)
        if self.effects is None:
            none = torch.zeros(0, n_conditions, dtype=torch.float64)
            return AffineMap(none, none.new_zeros(0)), none.new_zeros(n_features, 0)
        center, weight, axes, deviations = map(torch.tensor, self.effects)
        return AffineMap(weight, -weight @ center), axes.T * deviations

    def _scores_of(self, of_condition: AffineMap) -> Tensor:
        """Return the scores of the condition of the batch, (n_rows, r)."""
        condition = self.batch.condition
        if condition is None:
            return torch.zeros(len(self.batch.x), 0, dtype=torch.float64)
        return condition.cpu().double() @ of_condition.weight.T + of_condition.bias

    def set_noise(self, likelihood: Likelihood, of_features: Tensor, mean: float) -> None:
        """Initialise the noise variance and its smallest value, from variances of the features."""
        if not isinstance(likelihood, WithNoise):
            return
        likelihood.floor = self.architecture.noise_floor * self.architecture.mean_variance
        located = self.architecture.located
        if likelihood.learned and located.any():
            found = of_features.where(located, torch.ones_like(of_features))
            found = found if likelihood.variance.ndim else torch.tensor(mean)
            likelihood.set_variance(found.to(likelihood.variance))

    def _learned_loadings(self, module: Any, z: Tensor) -> AffineMap:
        """Return the map from codes of the batch to outputs that explains its rows best.

        It maximises the likelihood under a Gaussian prior on the loadings, because the likelihood
        has no maximum if columns are separable or contain only zeros. The parameters of the
        likelihood are learned together with it. If an output activation bounds the mean, the map
        minimises squared errors.
        """
        batch, likelihood = self.batch, module.likelihood
        z = z.to(batch.y)
        start = self.architecture.start_output().to(batch.y)
        weight = start.new_zeros(len(start), z.shape[1]).requires_grad_()
        bias = start.clone().requires_grad_()
        of_rows = torch.ones_like(z[:, 0]) if batch.weight is None else batch.weight
        of_rows = of_rows / of_rows.mean()

        def outputs() -> Tensor:
            found: Tensor = module.out_activation(torch.addmm(bias, z, weight.T))
            return found

        def cost() -> Tensor:
            if likelihood.location:
                errors = (batch.y - outputs()).square()
                errors = errors if batch.seen is None else errors * batch.seen
                nats = errors.sum(1) / (2 * self.architecture.mean_variance)
            else:
                nats = -likelihood.row_log_prob(batch.y, outputs(), batch.seen)
            prior = weight.square().sum() + (bias - start).square().sum()
            return (of_rows * nats).sum() + 0.5 * _RIDGE * prior

        optimizer = torch.optim.LBFGS(
            [weight, bias, *likelihood.parameters()],
            max_iter=_LOADING_STEPS,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = cost()
            loss.backward()
            return loss

        before = [p.detach().clone() for p in likelihood.parameters()]
        with torch.enable_grad():
            optimizer.step(closure)
        with torch.no_grad():
            learned = [weight, bias, *likelihood.parameters()]
            if not all(t.isfinite().all() for t in learned):  # values of too different sizes
                for t, old in zip(learned, [torch.zeros_like(weight), start, *before], strict=True):
                    t.copy_(old)
            noise = NoiseSums(likelihood)
            noise.add(batch.y, outputs(), batch.weight, batch.seen)
            noise.settle()
        return AffineMap(*(t.detach().cpu().double() for t in (weight, bias)))
