"""TorchAutoencoder: what every model with a network has in common.

It owns a skorch net (`net_`), chooses device and precision, keeps the seeds, moves
rows in and out of the network in its own units, and saves as plain arrays.
"""

import copy
import copyreg
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import ceil, prod
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils.validation import validate_data
from skorch.callbacks import Callback
from torch import Tensor, nn

from skae._base import (
    BaseAutoencoder,
    Interval,
    StrOptions,
    fit_context,
)
from skae._blueprint import Blueprint, common_scale
from skae._likelihoods import LIKELIHOODS, WithNoise
from skae._networks import ACTIVATIONS, MIN_SIDE, OUT_RANGES, POOLINGS
from skae._rows import Batch, Data, Rows, as_tensor, check_finite, spread_of
from skae._saving import holds_module, is_same, to_arrays, to_tensors
from skae._training import (
    OPTIMIZERS,
    SCHEDULES,
    Net,
    TrainableModule,
    global_generators_set_aside,
)
from skae._training_callbacks import (
    Progress,
    StopWhenFlat,
    Tasks,
    adaptive_rate,
    is_callback,
    release,
)

Array = NDArray[Any]

# Rows that go through the network at once when nothing is learned.
_INFERENCE_ROWS = 2048
# What the weight of earlier calls is multiplied with when partial_fit sees new rows.
_MEMORY = 0.9


class TorchAutoencoder(CallbackSupportMixin, BaseAutoencoder):
    """An autoencoder of networks, trained by a skorch net in batches.

    Subclasses implement `_make_module` and what is particular to them; fitting,
    encoding in chunks, continuing, saving and the parameters below are here.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained net; its module is `net_.module_`.
    history_ : list of dict
        The losses of every epoch, in nats per row, as skorch records them.
    n_iter_ : int
        Epochs that were trained, in all.
    """

    _Blueprint: ClassVar[type[Blueprint]] = Blueprint

    # For type checkers, which know no parameters of subclasses.
    device: str
    _blueprint: Any

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "decoder_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left"), None],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "out_activation": [StrOptions({"identity", *OUT_RANGES})],
        "normalization": [StrOptions({"batch"}), None],
        "network": [StrOptions({"mlp", "conv"})],
        "image_shape": [tuple, list, None],
        "pooling": [StrOptions(set(POOLINGS))],
        "encoder": [nn.Module, None],
        "decoder": [nn.Module, None],
        "likelihood": [StrOptions(set(LIKELIHOODS))],
        "noise_variance": [
            StrOptions({"scalar", "per_feature"}),
            Interval(Real, 0, None, closed="neither"),
        ],
        "missing": [StrOptions({"mask", "error"})],
        "solver": [StrOptions(set(OPTIMIZERS))],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions(set(SCHEDULES))],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
        "device": [str],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "compile": ["boolean"],
        "callbacks": [list, tuple, None],
    }

    # ---------------------------------------------------------------- the hooks

    @abstractmethod
    def _make_module(self, generator: torch.Generator) -> TrainableModule:
        """The network of `_blueprint`, with weights drawn from the generator."""

    @abstractmethod
    def _finish(self, data: Data, share: float) -> Array | None:
        """Learn what depends on the trained network: noise, moments of the codes.

        May return the codes of the rows.

        `share` is what these rows count beside what was learned from earlier ones:
        1 after `fit`, less within a stream.
        """

    def _check_choices(self, n_features: int) -> None:
        """Raise for parameters that cannot go together."""
        sizes = layer_sizes("hidden_layer_sizes", self.hidden_layer_sizes)
        if self.decoder_layer_sizes is not None:
            layer_sizes("decoder_layer_sizes", self.decoder_layer_sizes)
        if self.image_shape is not None:
            shape = tuple(self.image_shape)
            whole = len(shape) == 3 and all(isinstance(s, Integral) and int(s) > 0 for s in shape)
            if not whole or prod(shape) != n_features:
                raise ValueError(
                    f"image_shape={self.image_shape!r} must be three positive integers "
                    f"(channels, height, width) whose product is the {n_features} features of X."
                )
        if self.network == "conv":
            if self.image_shape is None:
                raise ValueError(
                    'network="conv" needs image_shape=(channels, height, width), given None.'
                )
            if min(self.image_shape[1:]) < MIN_SIDE:
                raise ValueError(
                    f"image_shape={tuple(self.image_shape)!r}: network='conv' needs a height "
                    f"and a width of at least {MIN_SIDE}."
                )
            if not sizes:
                raise ValueError(
                    "hidden_layer_sizes=() has no channels: network='conv' needs one or more."
                )
        strange = [value for value in self.callbacks or [] if not is_callback(value)]
        if strange:
            raise ValueError(
                f"callbacks={self.callbacks!r} must hold skorch callbacks, or pairs of a name and "
                f"one; {strange[0]!r} is none. scikit-learn's are set by set_callbacks."
            )
        has_location = LIKELIHOODS[self.likelihood].location
        if self.out_activation != "identity" and not has_location:
            raise ValueError(
                f"out_activation={self.out_activation!r} goes with likelihood='gaussian' or "
                f"'laplace'; {self.likelihood!r} has its own, given the output as logits or log "
                "rates."
            )
        if self.noise_variance != "scalar" and not has_location:
            raise ValueError(
                f"noise_variance={self.noise_variance!r} goes with likelihood='gaussian' or "
                f"'laplace'; {self.likelihood!r} has no noise variance."
            )

    # -------------------------------------------------------------------- learning

    @with_callbacks
    def _fit_model(
        self,
        X: Array,
        rng: np.random.RandomState,
        sample_weight: Array | None,
        y: Array | None = None,
    ) -> Array | None:
        known = self.__dict__.pop("_continued", None)
        context = self._init_callback_context(max_subtasks=self.max_iter)
        context.call_on_fit_task_begin(estimator=self, X=X)
        data = self._begin(X, sample_weight, y, known, rng)
        rows = self._rows(data, reread=True)
        train, valid = self._split(len(X))
        self._check_batches(len(train))
        if known is None:
            self._prepare(rows, train)
        monitor = "train_loss" if valid is None else "valid_loss"
        callbacks = self._engine_callbacks(monitor)
        if hasattr(self, "_skl_callbacks"):
            callbacks.append(("skae_tasks", Tasks(self, context, data)))
        self._n_rows_seen = float(len(X) if sample_weight is None else sample_weight.sum())
        self._train(rows, train, valid, callbacks, self.max_iter)
        codes = self._finish(data, 1.0)
        self._train_more(data, codes, valid)
        self._check_trained()
        context.call_on_fit_task_end(estimator=self, X=X)
        return codes

    @fit_context
    def partial_fit(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train for one epoch over these rows, going on from what was learned before.

        The first call, on an unfitted estimator, fixes the units in which the network
        reads rows. Noise and moments of the codes are running averages over the calls,
        in which every call counts 0.9 times the one after it per row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            A batch of rows, of any length; it is cut into batches of `batch_size`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            What a conditional model is conditioned on; ignored by all others.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        ValueError
            If the batch or `sample_weight` is not allowed; the batch is then as if it
            had not been given.
        """
        with self._all_or_nothing():
            first = not hasattr(self, "net_")
            rows_in = self._check_rows(X, reset=first)
            weight = self._check_weight(sample_weight, rows_in)
            targets = self._check_targets(y, len(rows_in))
            rows_in, weight, targets = self._rows_that_count(rows_in, weight, targets)
            known = None if first else self._known()
            data = self._begin(rows_in, weight, targets, known, self._generator())
            rows = self._rows(data, reread=True)
            train = torch.arange(len(rows))
            self._check_batches(len(train))
            if first:
                self._prepare(rows, train)
            self._train(rows, train, None, [], 1, scheduled=False)
            n_rows = float(len(rows) if weight is None else weight.sum())
            self._n_rows_seen = n_rows + (0.0 if first else _MEMORY * self._n_rows_seen)
            codes = self._finish(data, n_rows / self._n_rows_seen)
            self._train_more(data, codes, None, streaming=True)
        return self

    def _forget(self) -> None:
        known = self._known() if self.warm_start and hasattr(self, "net_") else None
        super()._forget()
        if known is not None:
            self._continued = known

    def _known(self) -> dict[str, Any]:
        """What training goes on from; copied before it is trained, to fail without a trace."""
        return {
            "net": self.net_,
            "blueprint": self._blueprint,
            "names": getattr(self, "feature_names_in_", None),
        }

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
    ) -> Data:
        """Start, or go on from what is known; what is learned from."""
        if known is not None:
            self._continue(known, X)
        data = Data(X, sample_weight, self._learn_targets(y, sample_weight, known))
        if known is None:
            self._start(data, rng)
        return data

    def _start(self, data: Data, rng: np.random.RandomState) -> None:
        X, weight, condition = data
        self._check_choices(X.shape[1])
        self._seed = int(rng.randint(2**31 - 1))
        spread = spread_of(X, weight)
        self._check_support(self, spread.low, spread.high)
        self._blueprint = self._Blueprint(
            **self._choices(),
            n_features=X.shape[1],
            n_codes=self._n_latents(),
            n_conditions=0 if condition is None else condition.shape[1],
            with_mask=spread.any_missing,
            center=spread.mean.numpy(),
            scale=common_scale(spread, X.dtype),
            range=(float(spread.low.min()), float(spread.high.max())),
        )
        # The fitted model goes on with these, whatever the parameters become.
        self._own = self._own_modules()
        self.n_components_ = self._n_latents()
        self._set_net(self._new_module(self._seed))

    def _continue(self, known: dict[str, Any], X: Array) -> None:
        """Go on from an earlier fit with the parameters of today, where they can change."""
        self._check_choices(X.shape[1])
        plan, names = known["blueprint"], getattr(self, "feature_names_in_", None)
        if X.shape[1] != plan.n_features:
            raise ValueError(
                f"X has {X.shape[1]} features, but training goes on from a fit on "
                f"{plan.n_features}. Fit anew, with warm_start=False."
            )
        now, then = self._choices(), plan.as_dict()
        changed = [n for n in now if now[n] != then[n] and n not in plan.changeable]
        if changed:
            name = changed[0]
            raise ValueError(
                f"{plan.names.get(name, name)}={now[name]!r} cannot change while training goes "
                f"on: it was {then[name]!r}. Fit anew, with warm_start=False."
            )
        if not all(map(is_same, self._own_modules(), self._own)):
            raise ValueError(
                "Networks and distributions of your own cannot change while training goes on. Fit "
                "anew, with warm_start=False."
            )
        if names is not None and known["names"] is not None and list(names) != list(known["names"]):
            raise ValueError(
                f"The columns of X are {list(names)}, but training goes on from a fit on "
                f"{list(known['names'])}."
            )
        self._blueprint = replace(plan, **{name: now[name] for name in plan.changeable})
        self._check_range(X, as_targets=True)
        self.n_components_ = self._n_latents()
        self._copy_net(known["net"])

    def _own_modules(self) -> tuple[Any, ...]:
        """The user's own modules among the parameters."""
        return (self.encoder, self.decoder)

    def _new_module(self, seed: int) -> TrainableModule:
        with global_generators_set_aside():
            return self._make_module(torch.Generator().manual_seed(seed))

    def _set_net(
        self,
        module: TrainableModule,
        device: torch.device | None = None,
        solver: str | None = None,
    ) -> None:
        self.net_ = self._new_net(module, device, solver, foreign_modules=holds_module(self._own))

    def _new_net(
        self,
        module: TrainableModule,
        device: torch.device | None = None,
        solver: str | None = None,
        **options: Any,
    ) -> Net:
        """A net with this estimator's training parameters, where `options` name no others."""
        device = device or self._device()
        wide = {"float32": False, "bfloat16": True}.get(
            self.precision,
            device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False),
        )
        settings: dict[str, Any] = {
            "solver": solver or self.solver,
            "alpha": self.alpha,
            "momentum": self.momentum,
            "learning_rate": self.learning_rate,
            "seed": self._seed,
            "autocast": torch.bfloat16 if wide else None,
            "compiled": self.compile,
            "lr": self.learning_rate_init,
            "batch_size": self.batch_size,
            "device": str(device),
        }
        return Net(module, **(settings | options)).initialize()

    def _copy_net(self, net: Net) -> None:
        """Take over a copy of a net, with this estimator's training parameters."""
        module = copy.deepcopy(net.module_)
        module.plan = self._blueprint
        self._set_net(module)
        self.net_.go_on_from(net)

    def _split(self, n_rows: int) -> tuple[Tensor, Tensor | None]:
        """Indices of training rows, and of validation rows where they are wanted."""
        if not self.early_stopping:
            return torch.arange(n_rows), None
        n_valid = ceil(self.validation_fraction * n_rows)
        if n_valid >= n_rows:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} of {n_rows} rows leaves none to "
                "train on."
            )
        order = torch.randperm(n_rows, generator=torch.Generator().manual_seed(self._seed + 1))
        return order[n_valid:], order[:n_valid].sort().values

    def _check_batches(self, n_train: int) -> None:
        """Raise where batch normalisation would have no variance to divide by."""
        if self.normalization == "batch" and (n_train < 2 or self.batch_size < 2):
            raise ValueError(
                "normalization='batch' needs two rows or more in a batch; given "
                f"batch_size={self.batch_size} and {n_train} rows to train on."
            )

    def _prepare(self, rows: Rows, train: Tensor) -> None:
        """What comes before training: nothing, or a pretraining."""

    def _train_more(
        self, data: Data, codes: Array | None, valid: Tensor | None, streaming: bool = False
    ) -> None:
        """What comes after training: nothing, or a network that learns from the codes.

        `valid` are the rows that were held out, if some were.
        """

    def _check_trained(self) -> None:
        """Warn of a training that ended before its time."""

    def _first_epoch_to_stop(self) -> int:
        """From which epoch on a flat loss may stop training, or slow it."""
        return 0

    def _engine_callbacks(self, monitor: str) -> list[tuple[str, Callback]]:
        """What listens to training by these parameters; the user's callbacks come after."""
        callbacks: list[tuple[str, Callback]] = []
        if self.learning_rate == "adaptive" and self.solver != "lbfgs":
            first = self._first_epoch_to_stop()
            callbacks.append(("skae_adaptive", adaptive_rate(monitor, self.tol, first)))
        if self.tol > 0 or self.early_stopping:
            stop = StopWhenFlat(
                monitor,
                patience=self.n_iter_no_change,
                tol=self.tol,
                restore=self.early_stopping,
                first_epoch=max(len(self.net_.history), self._first_epoch_to_stop()),
            )
            callbacks.append(("skae_stop", stop))
        if self.verbose:
            callbacks.append(("skae_progress", Progress(self.max_iter)))
        return callbacks

    def _train(
        self,
        rows: Rows,
        train: Tensor,
        valid: Tensor | None,
        callbacks: list[tuple[str, Callback]],
        epochs: int,
        scheduled: bool = True,
    ) -> None:
        listeners = [*callbacks, *(self.callbacks or [])]
        train_net(self.net_, listeners, rows, train, valid, epochs, scheduled)
        self.n_iter_ = len(self.net_.history)

    def _check_codes_are_finite(self, codes: Array) -> None:
        if not np.isfinite(codes).all():
            raise ValueError(
                f"Training diverged: after {self.n_iter_} epochs the codes are not finite. Lower "
                f"learning_rate_init (now {self.learning_rate_init}) or rescale X."
            )

    @property
    def history_(self) -> list[dict[str, Any]]:
        """The losses of every epoch, in nats per row."""
        return self.net_.history

    # ------------------------------------------------------------------ the network

    def _has_own_networks(self) -> bool:
        return self.encoder is not None or self.decoder is not None

    def _device(self) -> torch.device:
        name = self.device
        if name == "auto":
            if torch.cuda.is_available():
                return torch.device("cuda")
            return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise ValueError(
                f"device={name!r} is none that torch knows; allowed are 'auto', 'cpu', 'cuda', "
                "'cuda:1', 'mps' and the like."
            ) from error
        if device.type not in ("cpu", "cuda", "mps"):
            raise ValueError(
                f"device={name!r} is none for training; allowed are 'auto', 'cpu', 'cuda', "
                "'cuda:1', 'mps' and the like."
            )
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(
                f"device={name!r} is not there: torch sees {torch.cuda.device_count()} CUDA "
                "devices. device='auto' takes what there is."
            )
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise ValueError("device='mps' is not there. device='auto' takes what there is.")
        return device

    def _n_latents(self) -> int:
        """How many codes are asked for."""
        return int(self.n_components)

    def _choices(self) -> dict[str, Any]:
        """Fields of the blueprint that parameters decide."""
        hidden = layer_sizes("hidden_layer_sizes", self.hidden_layer_sizes)
        back = hidden[::-1]
        if self.decoder_layer_sizes is not None:
            back = layer_sizes("decoder_layer_sizes", self.decoder_layer_sizes)
        return {
            "n_components": self._n_latents(),
            "hidden_layer_sizes": hidden,
            "decoder_layer_sizes": back,
            "activation": self.activation,
            "out_activation": self.out_activation,
            "normalization": self.normalization,
            "network": self.network,
            "image_shape": None if self.image_shape is None else tuple(map(int, self.image_shape)),
            "pooling": self.pooling,
            "tied_weights": False,
            "likelihood": self.likelihood,
            "noise_variance": self.noise_variance,
            "own_networks": self._has_own_networks(),
        }

    # ------------------------------------------------------- rows in and rows out

    def _rows(self, data: Data, reread: bool = False) -> Rows:
        return Rows(
            data,
            units=self._blueprint.units,
            with_mask=self._blueprint.with_mask,
            reread=reread,
            device=self._net_device(),
        )

    def _net_device(self) -> torch.device:
        return torch.device(self.net_.device)

    def _chunks(self, rows: Rows) -> Iterator[tuple[slice, Batch]]:
        """The rows in order, in pieces that fit into memory."""
        for part in slices(len(rows)):
            yield part, rows.batch(part)

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
                z = torch.from_numpy(np.ascontiguousarray(Z[part], dtype=np.float32))
                z = z.to(self._net_device())
                out[part] = self._in_data_units(compute(z))
        return out

    def _inference(self) -> Any:
        """No gradients, no noise, float32."""
        self.net_.module_.eval()
        return torch.inference_mode()

    def _torch_generator(self, rng: np.random.RandomState) -> torch.Generator:
        """A generator on the net's device, seeded by a draw of another."""
        return torch.Generator(self._net_device()).manual_seed(int(rng.randint(2**31 - 1)))

    def _in_data_units(self, rows: Tensor) -> Array:
        """Rows out of the network's units, float32."""
        targets = self._blueprint.units.targets
        rows = rows.cpu() if targets is None else targets.undo(rows)
        return rows.float().numpy()

    def _noise_so_far(self) -> Tensor | None:
        """The published noise variance, in the network's units."""
        if self.noise_variance_ is None:
            return None
        scale = self._blueprint.target_scale
        return torch.as_tensor(np.asarray(self.noise_variance_) / scale**2, dtype=torch.float32).to(
            self._net_device()
        )

    def _publish_noise(self) -> None:
        """The noise variance in the units of the data."""
        likelihood = self.net_.module_.likelihood
        self.noise_variance_ = None
        if isinstance(likelihood, WithNoise):
            variance = likelihood.variance.cpu().double().numpy()
            variance = variance * self._blueprint.target_scale**2
            self.noise_variance_ = variance if variance.ndim else float(variance)

    # --------------------------------------------------------------------- checks

    def _check_rows(self, X: Any, *, reset: bool, min_rows: int = 1) -> Any:
        """As in the base, but without converting whole arrays: networks cast by the batch."""
        X = validate_data(
            self,
            X,
            reset=reset,
            dtype="numeric",
            ensure_all_finite=False,
            ensure_min_samples=min_rows,
        )
        check_finite(X, allow_nan=self.missing == "mask")
        return X

    def _check_support(self, choices: Any, low: Tensor, high: Tensor) -> None:
        """Raise if some column, of these minima and maxima, has values that cannot be.

        `choices` are this estimator's parameters, or the blueprint that it was fitted by.
        """
        name, (least, most) = "likelihood", LIKELIHOODS[choices.likelihood].support
        if choices.out_activation != "identity":
            name, (least, most) = "out_activation", OUT_RANGES[choices.out_activation]
        wrong = ((low < least) | (high > most)).nonzero()
        if len(wrong):
            column = int(wrong[0])
            names = getattr(self, "feature_names_in_", None)
            which = f"column {column}" if names is None else f"column {names[column]!r}"
            raise ValueError(
                f"{name}={getattr(choices, name)!r} allows values in [{least:g}, {most:g}]; "
                f"{which} of X has values from {float(low[column]):g} to {float(high[column]):g}."
            )

    def _check_range(self, X: Array, as_targets: bool = False) -> None:
        """Raise for rows that the likelihood cannot score, or the decoder not write."""
        plan = self._blueprint
        unbounded = LIKELIHOODS[plan.likelihood].location
        if unbounded and not (as_targets and plan.out_activation != "identity"):
            return
        source = as_tensor(X)
        low = torch.full((X.shape[1],), torch.inf, dtype=torch.float64)
        high = -low
        for part in slices(len(source)):
            values = source[part].double()
            low = torch.minimum(low, values.nan_to_num(torch.inf).amin(0))
            high = torch.maximum(high, values.nan_to_num(-torch.inf).amax(0))
        self._check_support(plan, low, high)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.input_tags.allow_nan = self.missing == "mask"
        tags.input_tags.positive_only = self.likelihood == "poisson"
        return tags

    # ---------------------------------------------------------------------- files

    def __getstate__(self) -> dict[str, Any]:
        """Weights and optimiser state as arrays, the history as lists, no net."""
        state = super().__getstate__()
        if "_blueprint" in state:
            state["_blueprint"] = state["_blueprint"].as_dict()
        return {
            name: saved_net(value) if isinstance(value, Net) else value
            for name, value in state.items()
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "net_" not in self.__dict__:
            return
        saved, plan = self.__dict__.pop("net_"), self.__dict__.pop("_blueprint")
        self._blueprint = self._Blueprint(**plan)
        self.net_ = self._loaded_net(
            saved, self._new_module(0), foreign_modules=holds_module(self._own)
        )

    def _loaded_net(self, saved: dict[str, Any], module: TrainableModule, **options: Any) -> Net:
        """A net as it was saved, around a module like the one that it had."""
        module.load_state_dict(to_tensors(saved["weights"]))
        try:
            net = self._new_net(module, solver=saved["solver"], **options)
        except ValueError:  # fitted on a device that is not here
            net = self._new_net(module, torch.device("cpu"), saved["solver"], **options)
        net.resume(to_tensors(saved["optimizers"]), saved["history"])
        net.module_.eval()
        return net

    def __reduce_ex__(self, protocol: Any) -> Any:
        return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]

    def __reduce__(self) -> Any:
        """What pickle never calls, as there is __reduce_ex__, and skops does."""
        own = [name for name, value in self.get_params().items() if holds_module(value)]
        if own or holds_module(getattr(self, "_own", None)):
            raise TypeError(
                f"{type(self).__name__} holds your own network ({', '.join(own)}), whose code "
                "skops cannot check: it saves weights and plain values only. Save it with pickle "
                "or joblib, or build the network by hidden_layer_sizes."
            )
        return self.__reduce_ex__(2)


def train_net(net: Net, callbacks: list[Any], rows: Rows, train: Tensor, *more: Any) -> None:
    """Train a net that callbacks listen to; it keeps none of them."""
    net.callbacks = callbacks
    net.initialize_callbacks()
    try:
        net.train(rows, train, *more)
    finally:
        for _, callback in net.callbacks_:
            if isinstance(callback, Progress):
                callback.close()
            release(callback)
        net.callbacks = None
        net.callbacks_ = []
    net.module_.eval()


def saved_net(net: Net) -> dict[str, Any]:
    """A net as plain values."""
    return {
        "weights": to_arrays(dict(net.module_.state_dict())),
        "optimizers": to_arrays([o.state_dict() for o in net.optimizers_]),
        "history": copy.deepcopy(net.history_.to_list()),
        "solver": net.solver,
    }


def slices(n_rows: int) -> Iterator[slice]:
    """Slices of as many rows as go through a network at once."""
    for start in range(0, n_rows, _INFERENCE_ROWS):
        yield slice(start, min(start + _INFERENCE_ROWS, n_rows))


def layer_sizes(name: str, sizes: Any) -> tuple[int, ...]:
    """A parameter that is one size or several, as a tuple."""
    sizes = (sizes,) if isinstance(sizes, Integral) else tuple(sizes)
    if not all(isinstance(s, Integral) and int(s) >= 1 for s in sizes):
        raise ValueError(f"{name}={sizes!r} must hold positive integers.")
    return tuple(int(s) for s in sizes)
