"""NetworkAutoencoder: what all networks that explain rows by a likelihood have in common.

It keeps the network's units, checks that rows are what the likelihood can explain, goes on
from earlier fits, and moves rows in and out of the network.
"""

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._linear.moments import scaled_weight
from skae._modules.architecture import Architecture, common_scale
from skae._net_owner import NetOwner, slices
from skae._nn.likelihoods import LIKELIHOODS, NoiseSums, WithNoise, explained
from skae._training.data import Batch, Data, Dataset, Spread, as_tensor, in_float32, spread_of
from skae._training.net import Net, TrainableModule, preserve_rng_state
from skae._training.saving import holds_module, is_same
from skae._utils.inputs import check_every_column_seen
from skae._utils.validation import Interval, StrOptions

Array = NDArray[Any]

# Training rows whose scores tell whether a model is of use.
_CHECKED_ROWS = 8
# Values of rows that are explained in the units of the data.
_LARGEST = 1e15


class NetworkAutoencoder(NetOwner):
    """A network with a likelihood p(x|z) of rows, trained by a skorch net in batches.

    Subclasses implement `_make_module`, `_choices` and what is particular to them.
    """

    _Architecture: ClassVar[type[Architecture]] = Architecture

    # For type checkers, which know no parameters of subclasses.
    _architecture: Any
    hidden_layer_sizes: Any
    missing: str

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NetOwner._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "likelihood": [StrOptions(set(LIKELIHOODS))],
        "noise_variance": [
            StrOptions({"scalar", "per_feature"}),
            Interval(Real, 0, None, closed="neither"),
        ],
        "missing": [StrOptions({"mask", "error"})],
    }

    # ---------------------------------------------------------------- the hooks

    @abstractmethod
    def _make_module(self, generator: torch.Generator) -> TrainableModule:
        """The network of `_architecture`, with weights drawn from the generator."""

    @abstractmethod
    def _choices(self) -> dict[str, Any]:
        """Fields of the blueprint that parameters decide."""

    @abstractmethod
    def _learn_from_outputs(self, data: Data, share: float) -> Array:
        """Learn what depends on the trained network, as `_finish`; the codes of the rows."""

    def _check_choices(self, n_features: int) -> None:
        """Raise for parameters that cannot go together."""
        layer_sizes("hidden_layer_sizes", self.hidden_layer_sizes)
        self._check_callbacks()

    def _user_modules(self) -> tuple[Any, ...]:
        """The user's own modules among the parameters."""
        return ()

    # ------------------------------------------------------------------------- learning

    def _known(self) -> dict[str, Any]:
        return {**super()._known(), "blueprint": self._architecture}

    def _learn_targets(
        self, y: Array | None, sample_weight: Array | None, known: dict[str, Any] | None
    ) -> NDArray[np.float32] | None:
        """Write the targets as what the decoder reads, (n_rows, n_conditions).

        What targets there are is learned where nothing is `known` from earlier calls.
        """
        return None

    def _begin(
        self,
        X: Array,
        sample_weight: Array | None,
        y: Array | None,
        known: dict[str, Any] | None,
        rng: np.random.RandomState,
        streaming: bool = False,
    ) -> Data:
        """Start, or go on from what is known; what is learned from."""
        if known is not None:
            self._continue(known, X)
        weight, _ = scaled_weight(sample_weight)  # they have no scale, and float32 has a range
        data = Data(X, weight, self._learn_targets(y, weight, known))
        if known is None:
            self._start(data, rng)
        return data

    def _start(self, data: Data, rng: np.random.RandomState) -> None:
        X, weight, condition = data
        self._check_choices(X.shape[1])
        self._seed = int(rng.randint(2**31 - 1))
        spread = spread_of(X, weight)
        if spread.any_missing:
            check_every_column_seen(X, getattr(self, "feature_names_in_", None))
        self._architecture = self._Architecture(
            **self._choices(),
            n_features=X.shape[1],
            n_codes=self._n_latents(),
            n_conditions=0 if condition is None else condition.shape[1],
            with_mask=spread.any_missing,
            center=spread.mean.numpy(),
            scale=common_scale(spread, X.dtype),
            range=(float(spread.low.min()), float(spread.high.max())),
        )
        self._check_support(spread.low, spread.high)
        self._check_size(spread)
        # The fitted model goes on with these, whatever the parameters become.
        self._own = self._user_modules()
        self.n_components_ = self._n_latents()
        self._set_net(self._new_module(self._seed))

    def _continue(self, known: dict[str, Any], X: Array) -> None:
        """Go on from an earlier fit with the parameters of today, where they can change."""
        self._check_choices(X.shape[1])
        architecture = known["blueprint"]
        self._check_continued(known, X.shape[1], architecture.n_features)
        now, then = self._choices(), architecture.as_dict()
        changed = [n for n in now if now[n] != then[n] and n not in architecture.changeable]
        if changed:
            name = changed[0]
            raise ValueError(
                f"{architecture.names.get(name, name)}={now[name]!r} cannot change while training "
                f"goes on: it was {then[name]!r}. Fit anew, with warm_start=False."
            )
        if not all(map(is_same, self._user_modules(), self._own)):
            raise ValueError(
                "Networks and distributions of your own cannot change while training goes on. Fit "
                "anew, with warm_start=False."
            )
        self._architecture = replace(
            architecture, **{name: now[name] for name in architecture.changeable}
        )
        self._check_range(X, as_targets=True)
        self.n_components_ = self._n_latents()
        self._copy_net(known["net"])

    def _new_module(self, seed: int) -> TrainableModule:
        with preserve_rng_state():
            return self._make_module(torch.Generator().manual_seed(seed))

    def _set_net(
        self,
        module: TrainableModule,
        device: torch.device | None = None,
        solver: str | None = None,
    ) -> None:
        self.net_ = self._new_net(module, device, solver, foreign_modules=holds_module(self._own))

    def _copy_net(self, net: Net) -> None:
        """Take over a copy of a net, with this estimator's training parameters."""
        module = copy.deepcopy(net.module_)
        module.architecture = self._architecture
        self._set_net(module)
        self.net_.go_on_from(net)

    def _finish(self, data: Data, share: float) -> Array | None:
        codes = self._learn_from_outputs(data, share)
        few: list[Any] = [None if a is None else a[:_CHECKED_ROWS] for a in data]
        scores = self._scores(Data(*few))
        if not np.isfinite(scores).all():
            raise ValueError(
                f"Training diverged: after {self.n_iter_} epochs a training row scores "
                f"{scores[~np.isfinite(scores)][0]}. Lower learning_rate_init (now "
                f"{self.learning_rate_init}) or rescale X."
            )
        return codes

    def _scores(self, data: Data) -> Array:
        """Nats of rows, beside what they are conditioned on."""
        scores: Array = self._log_prob(data.X)
        return scores

    def _check_codes_are_finite(self, codes: Array) -> None:
        if not np.isfinite(codes).all():
            raise ValueError(
                f"Training diverged: after {self.n_iter_} epochs the codes are not finite. Lower "
                f"learning_rate_init (now {self.learning_rate_init}) or rescale X."
            )

    def _n_latents(self) -> int:
        """How many codes are asked for."""
        return int(self.n_components)

    # ------------------------------------------------------------- rows in and rows out

    def _rows(self, data: Data, reread: bool = False) -> Dataset:
        return Dataset(
            data,
            units=self._architecture.units,
            with_mask=self._architecture.with_mask,
            reread=reread,
            device=self._net_device(),
        )

    def _map_rows(
        self,
        data: Data,
        compute: Callable[[Batch], Tensor],
        *width: int,
        dtype: type[np.generic] = np.float32,
    ) -> Array:
        """A function of batches, over all rows; on the CPU."""
        rows = self._rows(data)
        out = np.empty((len(rows), *width), dtype=dtype)
        with self._inference():
            for part, batch in self._chunks(rows):
                out[part] = compute(batch).cpu().numpy()
        return out

    def _map_codes(self, Z: Array, compute: Callable[[Tensor], Tensor]) -> Array:
        """Rows in the units of the data that a function makes of codes."""
        out = np.empty((len(Z), self.n_features_in_), dtype=np.float32)
        with self._inference():
            for part in slices(len(Z)):
                z = in_float32(as_tensor(Z[part])).to(self._net_device())
                out[part] = self._in_data_units(compute(z))
        return out

    def _in_data_units(self, rows: Tensor) -> Array:
        """Rows out of the network's units, float32."""
        targets = self._architecture.units.targets
        rows = rows.cpu() if targets is None else targets.undo(rows)
        return rows.float().numpy()

    def _noise_so_far(self) -> Tensor | None:
        """The published noise variance, in the network's units."""
        if self.noise_variance_ is None:
            return None
        scale = self._architecture.target_scale
        return torch.as_tensor(np.asarray(self.noise_variance_) / scale**2, dtype=torch.float32).to(
            self._net_device()
        )

    def _learn_noise_of_draws(
        self, data: Data, share: float, n_draws: int, drawn: Callable[..., Iterator[Any]]
    ) -> None:
        """The noise of outputs at draws of codes, other draws in every call.

        `drawn` makes of the module, rows, a number and a generator batches, outputs and shares.
        """
        module = self.net_.module_
        noise = NoiseSums(module.likelihood)
        if noise.likelihood is not None:
            rows = self._rows(data)
            seed = self._seed + 1_000_003 * self.n_iter_
            generator = torch.Generator(rows.device).manual_seed(seed)
            with self._inference():
                for batch, output, weight in drawn(module, rows, n_draws, generator):
                    noise.add(*explained(batch, output, weight))
            noise.settle(share, self._noise_so_far() if share < 1 else None)
        self._publish_noise()

    def _publish_noise(self) -> None:
        """The noise variance in the units of the data."""
        likelihood = self.net_.module_.likelihood
        self.noise_variance_ = None
        if isinstance(likelihood, WithNoise):
            variance = likelihood.variance.cpu().double().numpy()
            variance = variance * self._architecture.target_scale**2
            self.noise_variance_ = variance if variance.ndim else float(variance)

    # --------------------------------------------------------------------------- checks

    def _check_support(self, low: Tensor, high: Tensor) -> None:
        """Raise if some column, of these minima and maxima, has values that cannot be."""
        name, (least, most) = self._support()
        wrong = ((low < least) | (high > most)).nonzero()
        if len(wrong):
            column = int(wrong[0])
            names = getattr(self, "feature_names_in_", None)
            which = f"column {column}" if names is None else f"column {names[column]!r}"
            raise ValueError(
                f"{name}={getattr(self._architecture, name)!r} allows values in [{least:g}, "
                f"{most:g}]; {which} of X has values from {float(low[column]):g} to "
                f"{float(high[column]):g}."
            )

    def _check_size(self, spread: Spread) -> None:
        """Raise for rows that are explained as they are, and too large for float32 to square."""
        size = float(torch.maximum(spread.low.abs(), spread.high.abs()).max())
        if self._architecture.units.targets is None and size > _LARGEST:
            raise ValueError(
                f"X has values up to {size:g} in size; networks of your own, an out_activation and "
                f"likelihoods of counts take rows as they are, up to {_LARGEST:g}. Rescale X, for "
                "example with sklearn.preprocessing.StandardScaler."
            )

    def _support(self, as_targets: bool = True) -> tuple[str, tuple[float, float]]:
        """What values rows may have, and the parameter that says so.

        As targets of training they may be those that the decoder can write.
        """
        return "likelihood", LIKELIHOODS[self._architecture.likelihood].support

    def _check_range(self, X: Array, as_targets: bool = False) -> None:
        """Raise for rows that the likelihood cannot score, or the decoder not write."""
        if self._support(as_targets)[1] == (-inf, inf):
            return
        source = as_tensor(X)
        low = torch.full((X.shape[1],), torch.inf, dtype=torch.float64)
        high = -low
        for part in slices(len(source)):
            values = source[part].double()
            low = torch.minimum(low, values.nan_to_num(torch.inf).amin(0))
            high = torch.maximum(high, values.nan_to_num(-torch.inf).amax(0))
        self._check_support(low, high)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.input_tags.allow_nan = self.missing == "mask"
        return tags

    # ---------------------------------------------------------------------------- files

    def __getstate__(self) -> dict[str, Any]:
        """The blueprint as plain values, too."""
        state = super().__getstate__()
        if "_architecture" in state:
            state["_architecture"] = state["_architecture"].as_dict()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "net_" not in self.__dict__:
            return
        saved, architecture = self.__dict__.pop("net_"), self.__dict__.pop("_architecture")
        self._architecture = self._Architecture(**architecture)
        self.net_ = self._loaded_net(
            saved, self._new_module(0), foreign_modules=holds_module(self._own)
        )


def layer_sizes(name: str, sizes: Any) -> tuple[int, ...]:
    """A parameter that is one size or several, as a tuple."""
    sizes = (sizes,) if isinstance(sizes, Integral) else tuple(sizes)
    if not all(isinstance(s, Integral) and int(s) >= 1 for s in sizes):
        raise ValueError(f"{name}={sizes!r} must hold positive integers.")
    return tuple(int(s) for s in sizes)
