"""EncoderDecoder: the base class of autoencoders with an encoder and a decoder network."""

from dataclasses import replace
from math import prod
from numbers import Integral
from typing import Any, ClassVar, Literal

import torch
from skorch.callbacks import Callback
from torch import Tensor, nn

from skae._count_rows import CountRowsMixin
from skae._linear_start import principal_model
from skae._modules.architecture import EncoderDecoderArchitecture, layer_sizes
from skae._modules.linear_start import LinearStart
from skae._modules.own_networks import Network, is_factory
from skae._nn.likelihoods import LIKELIHOODS
from skae._nn.linear_maps import rank_held
from skae._nn.networks import ACTIVATIONS, MIN_SIDE, OUT_RANGES, POOLINGS
from skae._tables.kinds import has_kinds
from skae._training.callbacks import CompareWithStart
from skae._training.data import Dataset, some_of
from skae._training.trainer import TRAINING_CONSTRAINTS
from skae._utils.types import ImageShape, LayerSizes, OutActivation
from skae._utils.validation import Interval, StrOptions
from skae._utils.warning import warn

# Number of rows from which the linear start is fitted for likelihoods without a closed form.
# If there are many columns, it is an eighth of it, or this number of values.
_LOADING_ROWS, _LOADING_VALUES = 2048, 2**22


def channels_first_advice(image_shape: Any) -> str:
    """Advice for an image_shape whose channels seem to come last; empty otherwise."""
    first, second, last = map(int, image_shape)
    if last not in (1, 3, 4) or min(first, second) <= 4:
        return ""
    return (
        f" Channels come first: if these are images of {first} x {second} pixels with {last} "
        f"channel{'s' * (last > 1)}, set image_shape=({last}, {first}, {second}) and give "
        f"X.reshape(-1, {first}, {second}, {last}).transpose(0, 3, 1, 2).reshape(len(X), -1)."
    )


class EncoderDecoder(CountRowsMixin):
    """An autoencoder with two networks, built-in ones or the user's own."""

    _Architecture: ClassVar[type[EncoderDecoderArchitecture]] = EncoderDecoderArchitecture

    # Parameters of subclasses, declared for type checkers.
    decoder_layer_sizes: LayerSizes | None
    out_activation: OutActivation
    normalization: Literal["batch"] | None
    network: Literal["mlp", "conv"]
    image_shape: ImageShape | None
    encoder: Network | None
    decoder: Network | None
    init: Literal["linear", "random"] | None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **CountRowsMixin._parameter_constraints,
        "decoder_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left"), None],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "out_activation": [StrOptions({"identity", *OUT_RANGES})],
        "normalization": [StrOptions({"batch"}), None],
        "network": [StrOptions({"mlp", "conv"})],
        "image_shape": [tuple, list, None],
        "pooling": [StrOptions(set(POOLINGS))],
        "encoder": [nn.Module, callable, None],
        "decoder": [nn.Module, callable, None],
        "init": [StrOptions({"linear", "random"}), None],
        "learning_rate": [*TRAINING_CONSTRAINTS["learning_rate"], None],
        "max_iter": [Interval(Integral, 0, None, closed="left"), None],
        "tol": [*TRAINING_CONSTRAINTS["tol"], None],
    }

    def _check_parameters(self, n_features: int) -> None:
        super()._check_parameters(n_features)
        if has_kinds(self.likelihood):
            self._check_parameters_of_tables()
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
                    f"and a width of at least {MIN_SIDE}.{channels_first_advice(self.image_shape)}"
                )
            if advice := channels_first_advice(self.image_shape):
                warn(
                    f"image_shape={tuple(self.image_shape)!r} is read as (channels, height, "
                    f"width).{advice}"
                )
            if not sizes:
                raise ValueError(
                    "hidden_layer_sizes=() is not allowed with network='conv', which needs at "
                    "least one layer."
                )
        has_location = has_kinds(self.likelihood) or LIKELIHOODS[self.likelihood].location
        if self.out_activation != "identity" and not has_location:
            raise ValueError(
                f"out_activation={self.out_activation!r} can be set for likelihood='gaussian' and "
                f"'laplace' only. For likelihood={self.likelihood!r} it must be 'identity', "
                "because the output of the decoder is read as logits or log rates."
            )
        if self.noise_variance != "scalar" and not has_location:
            raise ValueError(
                f"noise_variance={self.noise_variance!r} can be set for likelihood='gaussian' and "
                f"'laplace' only; {self.likelihood!r} has no noise variance."
            )

        obstacle = self._obstacle_to_linear_start()
        if self.init == "linear" and obstacle:
            raise ValueError(f"init='linear' needs {obstacle} Set init=None or 'random'.")

    def _check_parameters_of_tables(self) -> None:
        """Raise for parameters that cannot be combined with a likelihood for each column."""
        for name, usual in (("out_activation", "identity"), ("network", "mlp")):
            if (value := getattr(self, name)) != usual:
                raise ValueError(
                    f"{name}={value!r} cannot be combined with a likelihood for each column. With "
                    f"likelihood={self.likelihood!r} it must be {usual!r}."
                )
        if self.image_shape is not None:
            raise ValueError(
                f"image_shape={self.image_shape!r} cannot be combined with a likelihood for each "
                f"column. With likelihood={self.likelihood!r} it must be None."
            )

    def _obstacle_to_linear_start(self) -> str | None:
        """The requirement of a linear start that is not met; None if all are met."""
        if self.network != "mlp":
            return f"network='mlp', given {self.network!r}."
        if self._has_own_networks():
            return "the built-in networks, not your own encoder or decoder."
        return None

    def _begins_linearly(self) -> bool:
        return self.init != "random" and self._obstacle_to_linear_start() is None

    def _prepare(self, rows: Dataset, train: Tensor) -> None:
        if self._begins_linearly():
            self._begin_linearly(rows, train)

    def _begin_linearly(self, rows: Dataset, train: Tensor) -> None:
        """Initialise the networks as the linear maps of PCA, unless all training rows are equal."""
        module, architecture = self._trainer.module, self._architecture
        networks = (module.encoder, module.decoder)
        ranks = [rank_held(network, architecture.activation) for network in networks]
        model = principal_model(
            rows.data,
            train.numpy(),
            min([architecture.n_code_numbers, *(rank for rank in ranks if rank is not None)]),
            ranks[1],
            architecture,
            seed=self._seed,
        )
        if model is None:
            return
        if architecture.columns is None:  # columns of tables have separate floors
            floor = model.noise_floor(architecture.noise_variance == "per_feature")
            self._architecture = replace(architecture, noise_floor=floor)
            module.architecture = self._architecture
        most = min(_LOADING_ROWS, max(_LOADING_ROWS // 8, _LOADING_VALUES // rows.data.X.shape[1]))
        some = train[some_of(len(train), most, self._seed + 6)]
        batch = rows.batch(some.to(rows.index_device))
        generator = torch.Generator(rows.device).manual_seed(self._seed + 5)
        start = LinearStart(model, self._architecture, batch, generator, ranks[0])
        if len(start):
            module.begin_linearly(start)
            self._trainer.net.begins_linearly = True
            if not module.begins_at_best_noise:
                self._settle_start(rows, train)

    def _settle_start(self, rows: Dataset, train: Tensor) -> None:
        """Initialise the noise variance from the residuals of the linear start, if there is one."""
        module, trainer = self._trainer.module, self._trainer
        if trainer.net.begins_linearly:
            module.eval()
            parts = (rows.batch(part.to(rows.index_device)) for part in train.split(_LOADING_ROWS))
            module.settle_noise((batch, module.loss(batch)) for batch in parts)

    def _own_listeners(self) -> list[tuple[str, Callback]]:
        # Early stopping itself compares with the linear start, on its held-out rows.
        compare = CompareWithStart(restore=not self._trainer.options.early_stopping)
        return [("skae_start", compare), *super()._own_listeners()]

    def _check_batches(self, n_train: int) -> None:
        """Raise if a batch has one row, for which batch normalisation has no variance."""
        if self.normalization == "batch" and (n_train < 2 or self.batch_size < 2):
            raise ValueError(
                "normalization='batch' needs at least two rows in a batch, given "
                f"batch_size={self.batch_size} and {n_train} training rows."
            )

    def _given_modules(self) -> tuple[Any, ...]:
        names = [n for n in ("encoder", "decoder", "perceptual") if hasattr(self, n)]
        return tuple(getattr(self, name) for name in names)

    def _has_own_networks(self) -> bool:
        return self.encoder is not None or self.decoder is not None

    def _has_foreign_modules(self) -> bool:
        return super()._has_foreign_modules() or self._architecture.own_networks

    def _names_of_own_code(self) -> list[str]:
        factories = [name for name in ("encoder", "decoder") if is_factory(getattr(self, name))]
        return factories + super()._names_of_own_code()

    def _derived_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {
            **super()._derived_fields(),
            "n_components": self._n_latents(),
            "own_networks": self._has_own_networks(),
        }
        if self.decoder_layer_sizes is None:  # the encoder's in reverse order
            hidden = layer_sizes("hidden_layer_sizes", self.hidden_layer_sizes)
            fields["decoder_layer_sizes"] = hidden[::-1]
        return fields

    def _support(self, as_targets: bool = True) -> tuple[str, tuple[float, float]]:
        bounded = self._architecture.out_activation
        if as_targets and bounded != "identity":
            return "out_activation", OUT_RANGES[bounded]
        return super()._support(as_targets)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"init": "random", "size_factor": None} | state)  # as in 0.1.0

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self._has_counts()
        return tags
