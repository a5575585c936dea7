"""A trainer: one network, the options of its training, and its state as arrays."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from math import ceil
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.callbacks import Callback
from torch import Tensor

from skae._training.averaging import begin_as_saved, set_averaging
from skae._training.callbacks import (
    StopWhenFlat,
    adaptive_rate,
    print_logs,
    release,
    without_writers,
)
from skae._training.checkpoints import CHECKPOINT_CONSTRAINTS
from skae._training.data import Batch, Dataset
from skae._training.loader import batch_sizes
from skae._training.module import TrainableModule
from skae._training.net import Net
from skae._training.net_state import go_on_from, resume, take_over
from skae._training.optimizers import OPTIMIZERS, SCHEDULES
from skae._training.precision import autocast_type, warn_of_slow_precision
from skae._training.progress import Progress, progress_of
from skae._training.ranks import is_first_rank, present_ranks
from skae._training.saving import to_arrays, to_tensors
from skae._training.threads import threads_for_one_pass
from skae._utils.validation import Interval, StrOptions
from skae._utils.versions import restoring

Array = NDArray[Any]

# Number of rows that go through the network at once in evaluation mode.
_INFERENCE_ROWS = 2048

# Smallest numbers of epochs and of steps if `max_iter` is None.
_EPOCHS, _STEPS = 200, 4000

# scikit-learn's constraints of the training parameters.
TRAINING_CONSTRAINTS: dict[str, list[Any]] = {
    "solver": [StrOptions(set(OPTIMIZERS))],
    "alpha": [Interval(Real, 0, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "learning_rate": [StrOptions(set(SCHEDULES))],
    "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
    "momentum": [Interval(Real, 0, 1, closed="left")],
    "weight_averaging": [Interval(Real, 0, 1, closed="left")],
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
    "distributed": ["boolean"],
    **CHECKPOINT_CONSTRAINTS,
}


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The training parameters of an estimator, under the same names."""

    solver: str
    alpha: float
    batch_size: int
    learning_rate: str | None
    learning_rate_init: float
    momentum: float
    weight_averaging: float
    max_iter: int | None
    tol: float | None
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    verbose: int
    device: str
    precision: str
    compile: bool
    callbacks: list[Any] | tuple[Any, ...] | None

    @classmethod
    def of(cls, estimator: Any) -> Self:
        """Return the present training parameters of an estimator."""
        return cls(**{field.name: getattr(estimator, field.name) for field in fields(cls)})

    def n_epochs(self, n_rows: int) -> int:
        """Return `max_iter`, or the number of epochs that gives enough epochs and steps."""
        if self.max_iter is not None:
            return int(self.max_iter)
        if self.solver == "lbfgs":  # an epoch of "lbfgs" has its own number of steps
            return _EPOCHS
        steps = len(batch_sizes(n_rows, self.batch_size))
        return max(_EPOCHS, ceil(_STEPS / steps))


class Trainer:
    """Trains one network, and can continue its training.

    Parameters
    ----------
    module : TrainableModule
        The network.
    options : TrainingOptions
        How it is trained.
    seed : int
        Seed of the order of the rows, of the noise, and of the choice of held-out rows.
    name : str
        What is trained, as `verbose` shows it, such as "VAE network".
    device : torch.device, default=None
        Device of the network; None means the device of `options`.
    foreign_modules, useful_untrained : bool, default=False
        See `Net`.
    """

    def __init__(
        self,
        module: TrainableModule,
        options: TrainingOptions,
        *,
        seed: int,
        name: str,
        device: torch.device | None = None,
        foreign_modules: bool = False,
        useful_untrained: bool = False,
    ) -> None:
        self.options, self.seed, self.name = options, seed, name
        self._spare: Trainer | None = None
        device = device or torch_device(options.device)
        self.net = Net(
            module,
            solver=options.solver,
            alpha=float(options.alpha),  # torch does not accept NumPy scalars
            momentum=float(options.momentum),
            weight_averaging=float(options.weight_averaging),
            learning_rate=options.learning_rate or "constant",
            seed=seed,
            autocast=autocast_type(options.precision, device),
            compiled=options.compile,
            lr=float(options.learning_rate_init),
            batch_size=int(options.batch_size),
            device=str(device),
            foreign_modules=foreign_modules,
            useful_untrained=useful_untrained,
        ).initialize()

    # -------------------------------------------------------------------- the network

    @property
    def module(self) -> Any:
        """The network."""
        return self.net.module_

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return torch.device(self.net.device)

    @property
    def n_epochs(self) -> int:
        """Total number of epochs."""
        return len(self.net.history)

    @contextmanager
    def inference(self, n_rows: int | None = None) -> Iterator[None]:
        """Context for evaluation: without gradients and noise, in float32.

        The number of threads is chosen for this many rows; None means a full batch of rows.
        """
        self.module.eval()
        n_rows = _INFERENCE_ROWS if n_rows is None else min(n_rows, _INFERENCE_ROWS)
        products = n_rows * self.module.products_per_row()
        with threads_for_one_pass(products), torch.inference_mode():
            yield

    def generator(self, rng: np.random.RandomState) -> torch.Generator:
        """Return a generator on the network's device, seeded by a draw from `rng`."""
        return torch.Generator(self.device).manual_seed(int(rng.randint(2**31 - 1)))

    # ------------------------------------------------------------------------ training

    def split(self, n_rows: int, held_out: bool | None = None) -> tuple[Tensor, Tensor | None]:
        """Return indices of training rows and of validation rows, or None for the latter.

        `held_out` says whether there are validation rows; None leaves it to `early_stopping`.
        """
        if not (self.options.early_stopping if held_out is None else held_out):
            return torch.arange(n_rows), None
        return split_rows(n_rows, self.options.validation_fraction, self.seed)

    def fit(
        self,
        rows: Dataset,
        train: Tensor,
        valid: Tensor | None,
        *,
        listeners: tuple[tuple[str, Callback], ...] = (),
        n_epochs: int | None = None,
        first_epoch_to_stop: int = 0,
        keeps_progress: bool = False,
    ) -> None:
        """Train for `n_epochs` or `max_iter` epochs, or until the loss no longer falls.

        `listeners` are called after the callbacks of the options, and before the user's callbacks.
        """
        warn_of_slow_precision(self.net.autocast, self.device)
        monitor = "train_loss" if valid is None else "valid_loss"
        n_epochs = self.options.n_epochs(len(rows)) if n_epochs is None else n_epochs
        callbacks = [*self._own_callbacks(monitor, first_epoch_to_stop, n_epochs), *listeners]
        self.net.keeps_progress = keeps_progress
        self._train(callbacks, rows, train, valid, n_epochs)
        self._spare = None  # only a stream uses it again

    def partial_fit(self, rows: Dataset) -> None:
        """Train for one epoch at a constant rate; an interruption restores the state before it."""
        self.net.keeps_progress = False  # with one epoch there is no progress to keep
        self._train([], rows, torch.arange(len(rows)), None, 1, scheduled=False)

    def _own_callbacks(
        self, monitor: str, first_epoch: int, n_epochs: int
    ) -> list[tuple[str, Callback]]:
        options, tol = self.options, self.options.tol or 0.0
        callbacks: list[tuple[str, Callback]] = []
        # It is the first, so that it ends before the others give warnings.
        if options.verbose and is_first_rank():
            progress = Progress(n_epochs, self.name, int(options.verbose))
            callbacks.append(("skae_progress", progress))
        if options.learning_rate == "adaptive" and options.solver != "lbfgs":
            adaptive = adaptive_rate(monitor, tol, first_epoch)
            callbacks.append(("skae_adaptive", adaptive))
        if tol > 0 or options.early_stopping:
            stop = StopWhenFlat(
                monitor,
                patience=options.n_iter_no_change,
                tol=tol,
                restore=options.early_stopping,
                first_epoch=max(self.n_epochs, first_epoch),
            )
            callbacks.append(("skae_stop", stop))
        return callbacks

    def _train(
        self, own: list[Any], rows: Dataset, *arguments: Any, scheduled: bool = True
    ) -> None:
        """Train the net with all callbacks; the net does not keep them."""
        if self.net.solver == "lbfgs" and rows.stored is not None:
            raise ValueError(
                "solver='lbfgs' computes each step from all rows, but X is "
                f"{rows.stored.kind} that is read in parts. Use solver='adam'."
            )
        given = list(self.options.callbacks or [])
        given = given if is_first_rank() else without_writers(given)
        net, callbacks = self.net, [*own, *given]
        net.callbacks = callbacks
        net.verbose = int(print_logs(callbacks))  # skorch prints its own lines only if this is 1
        net.initialize_callbacks()
        set_averaging(net.module_, wanted=self.options.weight_averaging > 0)
        try:
            net.train(rows, *arguments, scheduled)
        finally:
            for progress in progress_of(net):
                progress.close(net, is_complete=False)
            for _, callback in net.callbacks_:
                release(callback)
            net.callbacks = None
            net.callbacks_ = []
        net.module_.eval()

    # ------------------------------------------------------------ continuing, and saving

    def fork(self, options: TrainingOptions, architecture: Any = None) -> "Trainer":
        """Return a trainer with a copy of the network that continues by these options.

        The present trainer does not change until the new one is forked, which may use its memory
        again.
        """
        spare, self._spare = self._spare, None
        # The memory of the previous fork can be used again if it has the same solver, parameters
        # and number of states.
        if spare is None or not (spare.options == self.options == options and spare.is_like(self)):
            spare = self._copy(options, torch_device(options.device), architecture)
        else:
            take_over(spare.net, self.net)
            if architecture is not None:
                spare.module.architecture = architecture
        # A user's network may hold more than tensors, and is therefore copied completely every
        # time.
        if not self.net.foreign_modules:
            spare._spare = self
        return spare

    def is_like(self, other: "Trainer") -> bool:
        """Return whether the same parameters are trained, and both averaged or not.

        Callbacks may freeze some parameters.
        """
        if (self.module.average is None) != (other.module.average is None):
            return False
        mine, theirs = self.module.parameters(), other.module.parameters()
        return all(a.requires_grad == b.requires_grad for a, b in zip(mine, theirs, strict=True))

    def copy(self) -> "Trainer":
        """Return a copy with its own network."""
        return self._copy(self.options, self.device)

    def _copy(
        self, options: TrainingOptions, device: torch.device, architecture: Any = None
    ) -> "Trainer":
        module = copy.deepcopy(self.module)
        if architecture is not None:
            module.architecture = architecture
        new = Trainer(
            module,
            options,
            seed=self.seed,
            name=self.name,
            device=device,
            foreign_modules=self.net.foreign_modules,
            useful_untrained=self.net.useful_untrained,
        )
        go_on_from(new.net, self.net)
        return new

    def state(self) -> dict[str, Any]:
        """Return weights and optimiser states as arrays, and the history as lists."""
        return {
            "weights": to_arrays(dict(self.module.state_dict())),
            "optimizers": to_arrays([o.state_dict() for o in self.net.optimizers_]),
            "history": copy.deepcopy(self.net.history_.to_list()),
            "solver": self.net.solver,
        }

    @classmethod
    def of_state(
        cls, state: dict[str, Any], module: TrainableModule, options: TrainingOptions, **more: Any
    ) -> Self:
        """Return a trainer with a saved state and a module of the same structure."""
        name = more["name"]
        with restoring(name):
            weights = to_tensors(state["weights"])
            begin_as_saved(module, weights)
            try:
                module.load_state_dict(weights)
            except RuntimeError as error:
                raise ValueError(" ".join(str(error).split())) from error
            options = replace(options, solver=state["solver"])
        try:
            trainer = cls(module, options, **more)
        except ValueError:  # the device of the fit is not available
            trainer = cls(module, options, device=torch.device("cpu"), **more)
        with restoring(name):
            resume(trainer.net, to_tensors(state["optimizers"]), state["history"])
        trainer.module.eval()
        return trainer


def split_rows(n_rows: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return indices of rows to train on, in random order, and of held-out rows."""
    n_valid = ceil(fraction * n_rows)
    if n_valid >= n_rows:
        raise ValueError(
            f"validation_fraction={fraction} of {n_rows} rows leaves no rows to train on; it "
            "must leave at least one."
        )
    order = torch.randperm(n_rows, generator=torch.Generator().manual_seed(seed + 1))
    return order[n_valid:], order[:n_valid].sort().values


def torch_device(name: str) -> torch.device:
    """Return the device of this name; "auto" means a GPU if there is one.

    Of several ranks, each has its own GPU.
    """
    ranks = present_ranks()
    name = name if ranks is None else ranks.device_of(name)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"device={name!r} is not a device of torch; allowed are 'auto', 'cpu', 'cuda', "
            "'cuda:1', 'mps' and the like."
        ) from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(
            f"device={name!r} cannot be used for training; allowed are 'auto', 'cpu', 'cuda', "
            "'cuda:1', 'mps' and the like."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={name!r} is not available: torch finds {torch.cuda.device_count()} CUDA "
            "devices. device='auto' uses a device that is available."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(
            "device='mps' is not available. device='auto' uses a device that is available."
        )
    return device


def slices(n_rows: int) -> Iterator[slice]:
    """Yield slices of rows that go through a network at once."""
    for start in range(0, n_rows, _INFERENCE_ROWS):
        yield slice(start, min(start + _INFERENCE_ROWS, n_rows))


def batches(rows: Dataset) -> Iterator[tuple[slice, Batch]]:
    """Yield the rows in order, in pieces that fit into memory."""
    for part in slices(len(rows)):
        yield part, rows.batch(part)
