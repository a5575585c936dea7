"""NetOwner: what every estimator that trains a network has in common.

It owns a skorch net (`net_`), chooses device and precision, keeps the seeds, tells
held-out rows apart, calls those who listen, and saves as plain arrays. What the network
is, and what rows are to it, is the business of subclasses.
"""

import copy
import copyreg
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from math import ceil
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils import get_tags
from sklearn.utils.validation import validate_data
from skorch.callbacks import Callback
from torch import Tensor

from skae._base import BaseAutoencoder
from skae._training.callbacks import (
    Progress,
    StopWhenFlat,
    Tasks,
    adaptive_rate,
    check_callbacks,
    check_copies,
    check_listeners,
    named_callbacks,
    print_logs,
    release,
    set_callback_params,
)
from skae._training.data import LEAST_WEIGHT, Batch, Data, Dataset, check_finite
from skae._training.net import OPTIMIZERS, SCHEDULES, Net, TrainableModule
from skae._training.saving import holds_module, to_arrays, to_tensors
from skae._utils.interrupts import keeps_progress
from skae._utils.validation import Interval, StrOptions, check_weight, clone_parameters, fit_context

Array = NDArray[Any]

# Rows that go through the network at once when nothing is learned.
_INFERENCE_ROWS = 2048
# What the weight of earlier calls is multiplied with when partial_fit sees new rows.
_MEMORY = 0.9


class NetOwner(CallbackSupportMixin, BaseAutoencoder):
    """An estimator whose model is trained by a skorch net in batches.

    Subclasses say what is learned from (`_begin`, `_rows`) and what follows from the trained
    network (`_finish`); fitting, continuing, saving and the parameters below are here.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained net; its module is `net_.module_`.
    history_ : list of dict
        The losses of every epoch, in nats per row, as skorch records them.
    n_iter_ : int
        Epochs that were trained, in all.
    """

    # For type checkers, which know no parameters of subclasses.
    callbacks: list[Any] | None
    device: str

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
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

    @abstractmethod
    def _rows(self, data: Data, reread: bool = False) -> Dataset:
        """What is learned from, as the network's batches."""

    def _learned_from(self, X: Array) -> Data:
        """What training reads of rows."""
        return Data(X)

    @abstractmethod
    def _finish(self, data: Data, share: float) -> Array | None:
        """Learn what depends on the trained network: noise, moments of the codes.

        May return the codes of the rows.

        `share` is what these rows count beside what was learned from earlier ones:
        1 after `fit`, less within a stream.
        """

    # ------------------------------------------------------------------------ learning

    @with_callbacks
    def _fit_model(
        self,
        X: Array,
        rng: np.random.RandomState,
        sample_weight: Array | None,
        previous: Self | None = None,
        y: Array | None = None,
        told: Any = None,
    ) -> Array | None:
        """`told` is the y that `fit` was given, for scikit-learn's callbacks."""
        known = None if previous is None else previous._known()
        if previous is not None:
            private = {n: v for n, v in vars(previous).items() if n[0] == "_"}
            self.__dict__.update(private | self.__dict__)
        check_listeners(getattr(self, "_skl_callbacks", []))
        context = self._init_callback_context(max_subtasks=self.max_iter)
        context.call_on_fit_task_begin(estimator=self, X=X, y=told)
        data = self._begin(X, sample_weight, y, known, rng)
        rows = self._rows(data, reread=True)
        train, valid = self._split(len(rows))
        self._check_batches(len(train))
        if known is None:
            self._prepare(rows, train)
        monitor = "train_loss" if valid is None else "valid_loss"
        callbacks = self._engine_callbacks(monitor)
        if hasattr(self, "_skl_callbacks"):
            tasks = Tasks(self, context, data, X, told, sample_weight)
            callbacks.append(("skae_tasks", tasks))
        self._n_rows_seen = float(len(rows) if sample_weight is None else sample_weight.sum())
        self._train(rows, train, valid, callbacks, self.max_iter)
        codes = self._finish_whatever_interrupts(data)
        self._train_more(data, codes, valid)
        self._check_trained()
        context.call_on_fit_task_end(estimator=self, X=X, y=told)
        return codes

    def _finish_whatever_interrupts(self, data: Data) -> Array | None:
        """Once more from the beginning after a first Ctrl-C: without it the training is lost."""
        try:
            return self._finish(data, 1.0)
        except KeyboardInterrupt:
            if self.net_.interrupted_ or not keeps_progress(self):
                raise
            warnings.warn(
                f"Training was interrupted after epoch {self.n_iter_}, whose state is kept.",
                UserWarning,
                stacklevel=2,
            )
            self.net_.interrupted_ = True
            return self._finish(data, 1.0)

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
            A batch of rows, of any length; it is cut into batches of `batch_size`. Where
            NaN is allowed, the first batch needs a seen value in every column; in a later one
            a column may be NaN throughout.
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
            weight = check_weight(sample_weight, rows_in)
            targets = self._check_targets(y, rows_in.shape[0])
            rows_in, weight, targets = self._rows_that_count(rows_in, weight, targets)
            known = None if first else self._known()
            data = self._begin(rows_in, weight, targets, known, self._generator(), streaming=True)
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

    def _check_continued(self, known: dict[str, Any], n_features: int, n_before: int) -> None:
        """Raise if training would go on from a fit on other columns."""
        names = getattr(self, "feature_names_in_", None)
        if n_features != n_before:
            raise ValueError(
                f"X has {n_features} features, but training goes on from a fit on {n_before}. "
                "Fit anew, with warm_start=False."
            )
        if names is not None and known["names"] is not None and list(names) != list(known["names"]):
            raise ValueError(
                f"The columns of X are {list(names)}, but training goes on from a fit on "
                f"{list(known['names'])}."
            )

    def _check_callbacks(self) -> None:
        """Raise for callbacks that skorch would not take, or that would wait in vain."""
        check_callbacks(self.callbacks or [], self.early_stopping)

    def _known(self) -> dict[str, Any]:
        """What training goes on from; copied before it is trained, to fail without a trace."""
        return {
            "net": self.net_,
            "names": getattr(self, "feature_names_in_", None),
        }

    # --------------------------------------------------------------------- the network

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
            "alpha": float(self.alpha),  # torch takes no numbers of NumPy's
            "momentum": float(self.momentum),
            "learning_rate": self.learning_rate,
            "seed": self._seed,
            "autocast": torch.bfloat16 if wide else None,
            "compiled": self.compile,
            "lr": float(self.learning_rate_init),
            "batch_size": int(self.batch_size),
            "device": str(device),
        }
        return Net(module, **(settings | options)).initialize()

    # ------------------------------------------------------------------------ training

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
        """Raise where batches would be too small."""

    def _prepare(self, rows: Dataset, train: Tensor) -> None:
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
            progress = Progress(int(self.max_iter), type(self).__name__)
            callbacks.append(("skae_progress", progress))
        return callbacks

    def _train(
        self,
        rows: Dataset,
        train: Tensor,
        valid: Tensor | None,
        callbacks: list[tuple[str, Callback]],
        epochs: int,
        scheduled: bool = True,
    ) -> None:
        listeners = [*callbacks, *(self.callbacks or [])]
        # `partial_fit`, which has no schedule, has one epoch: nothing to keep before it ends.
        self.net_.keeps_progress = scheduled and keeps_progress(self)
        train_net(self.net_, listeners, rows, train, valid, int(epochs), scheduled)
        self.n_iter_ = len(self.net_.history)

    @property
    def history_(self) -> list[dict[str, Any]]:
        """The losses of every epoch, in nats per row."""
        return self.net_.history

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

    def _net_device(self) -> torch.device:
        return torch.device(self.net_.device)

    def _chunks(self, rows: Dataset) -> Iterator[tuple[slice, Batch]]:
        """The rows in order, in pieces that fit into memory."""
        for part in slices(len(rows)):
            yield part, rows.batch(part)

    def _inference(self) -> Any:
        """No gradients, no noise, float32."""
        self.net_.module_.eval()
        return torch.inference_mode()

    def _torch_generator(self, rng: np.random.RandomState) -> torch.Generator:
        """A generator on the net's device, seeded by a draw of another."""
        return torch.Generator(self._net_device()).manual_seed(int(rng.randint(2**31 - 1)))

    # -------------------------------------------------------------------------- checks

    def _check_rows(self, X: Any, *, reset: bool, min_rows: int = 1) -> Any:
        """As in the base, but without converting whole arrays: networks cast by the batch."""
        X = validate_data(
            self,
            self._as_rows(X),
            reset=reset,
            dtype="numeric",
            ensure_all_finite=False,
            ensure_min_samples=min_rows,
        )
        check_finite(X, allow_nan=get_tags(self).input_tags.allow_nan)
        return X

    def _counted(self, weight: Any | None) -> Any | None:
        """As in the base; what float32 would lose beside the largest weight counts nothing, too."""
        if weight is not None and weight.size:
            weight = np.where(weight < LEAST_WEIGHT * weight.max(), 0.0, weight)
        return super()._counted(weight)

    # ------------------------------------------------------------------- parameters

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters of this estimator.

        Parameters
        ----------
        deep : bool, default=True
            Those of callbacks too, as ``callbacks__<name>__<parameter>``, where the name is the
            one given beside the callback, or that of its class.

        Returns
        -------
        params : dict
            The parameters by name.
        """
        params: dict[str, Any] = super().get_params(deep=deep)
        for name, callback in named_callbacks(self.callbacks) if deep else ():
            params[f"callbacks__{name}"] = callback
            if not isinstance(callback, type):
                theirs = callback.get_params(deep=False)
                params |= {f"callbacks__{name}__{key}": value for key, value in theirs.items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set the parameters of this estimator.

        Parameters
        ----------
        **params : dict
            Parameters by name; ``callbacks__<name>`` replaces a callback,
            ``callbacks__<name>__<parameter>`` sets one of its parameters.

        Returns
        -------
        self : object
            The estimator.
        """
        of_callbacks = {n: params.pop(n) for n in [*params] if n.startswith("callbacks__")}
        super().set_params(**params)
        if of_callbacks:
            self.callbacks = set_callback_params(self.callbacks, of_callbacks)
        return self

    def __sklearn_clone__(self) -> Self:
        try:
            return clone_parameters(self)
        except Exception:
            advice = "Let it open what it holds in its method initialize, which training calls."
            check_copies(self.callbacks, advice)
            raise

    # ---------------------------------------------------------------------- files

    def __copy__(self) -> Self:
        """A copy with a net of its own, and the same callbacks."""
        new = type(self).__new__(type(self))
        new.__setstate__(self.__getstate__())
        return new

    def __getstate__(self) -> dict[str, Any]:
        """Weights and optimiser state as arrays, the history as lists, no net."""
        state = super().__getstate__()
        return {
            name: saved_net(value) if isinstance(value, Net) else value
            for name, value in state.items()
        }

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
        advice = "A fitted model needs no callbacks: set_params(callbacks=None) before saving it."
        check_copies(self.callbacks, advice)
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


def train_net(net: Net, callbacks: list[Any], rows: Dataset, train: Tensor, *more: Any) -> None:
    """Train a net that callbacks listen to; it keeps none of them."""
    net.callbacks = callbacks
    net.verbose = int(print_logs(callbacks))  # skorch's own print only where this is 1
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
