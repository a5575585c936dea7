"""Trainer: one network, the options of its training, and its state as arrays."""

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

from skae._training.callbacks import (
    Progress,
    StopWhenFlat,
    adaptive_rate,
    print_logs,
    release,
)
from skae._training.data import Batch, Dataset
from skae._training.loader import batch_sizes
from skae._training.module import TrainableModule
from skae._training.net import Net
from skae._training.optimizers import OPTIMIZERS, SCHEDULES
from skae._training.saving import to_arrays, to_tensors
from skae._training.threads import threads_for_one_pass
from skae._utils.validation import Interval, StrOptions

Array = NDArray[Any]

# Rows that go through the network at once when nothing is learned.
_INFERENCE_ROWS = 2048

# Without `max_iter`: epochs and steps, at least.
_EPOCHS, _STEPS = 200, 4000

# scikit-learn's constraints of the parameters that say how a network is trained.
TRAINING_CONSTRAINTS: dict[str, list[Any]] = {
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


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a network is trained, by the names of the parameters of estimators."""

    solver: str
    alpha: float
    batch_size: int
    learning_rate: str | None
    learning_rate_init: float
    momentum: float
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
        """Those of an estimator as its parameters are now."""
        return cls(**{field.name: getattr(estimator, field.name) for field in fields(cls)})

    def n_epochs(self, n_rows: int) -> int:
        """Epochs on so many rows: those asked for, or as many as make enough epochs and steps."""
        if self.max_iter is not None:
            return int(self.max_iter)
        if self.solver == "lbfgs":  # whose epochs have steps of their own
            return _EPOCHS
        steps = len(batch_sizes(n_rows, self.batch_size))
        return max(_EPOCHS, ceil(_STEPS / steps))


class Trainer:
    """Trains one network, and goes on.

    Parameters
    ----------
    module : TrainableModule
        The network.
    options : TrainingOptions
        How it is trained.
    seed : int
        Of the order of the rows, the noise, and of which rows are held out.
    name : str
        Of what is trained, for the line of `verbose`.
    device : torch.device, default=None
        Where the network is; None takes what the options say.
    foreign_modules, useful_untrained : bool, default=False
        As in `Net`.
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
        wide = {"float32": False, "bfloat16": True}.get(
            options.precision,
            device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False),
        )
        self.net = Net(
            module,
            solver=options.solver,
            alpha=float(options.alpha),  # torch takes no numbers of NumPy's
            momentum=float(options.momentum),
            learning_rate=options.learning_rate or "constant",
            seed=seed,
            autocast=torch.bfloat16 if wide else None,
            compiled=options.compile,
            lr=float(options.learning_rate_init),
            batch_size=int(options.batch_size),
            device=str(device),
            foreign_modules=foreign_modules,
            useful_untrained=useful_untrained,
        ).initialize()

    # ------------------------------------------------------------------ what it trains

    @property
    def module(self) -> Any:
        """The network."""
        return self.net.module_

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return torch.device(self.net.device)

    @property
    def n_epochs(self) -> int:
        """How many epochs it was trained, in all."""
        return len(self.net.history)

    @contextmanager
    def inference(self, n_rows: int | None = None) -> Iterator[None]:
        """No gradients, no noise, float32; with as many threads as so many rows are worth, or as
        many as go through the network at once."""
        self.module.eval()
        n_rows = _INFERENCE_ROWS if n_rows is None else min(n_rows, _INFERENCE_ROWS)
        products = n_rows * self.module.products_per_row()
        with threads_for_one_pass(products), torch.inference_mode():
            yield

    def generator(self, rng: np.random.RandomState) -> torch.Generator:
        """A generator on the network's device, seeded by a draw of another."""
        return torch.Generator(self.device).manual_seed(int(rng.randint(2**31 - 1)))

    # ------------------------------------------------------------------------ training

    def split(self, n_rows: int, held_out: bool | None = None) -> tuple[Tensor, Tensor | None]:
        """Indices of training rows, and of validation rows where they are wanted: as the options
        say, unless told."""
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
        """Train for so many epochs, or `max_iter`, or until the loss no longer falls.

        `listeners` hear of it after what the options ask for, and before the user's callbacks.
        """
        monitor = "train_loss" if valid is None else "valid_loss"
        n_epochs = self.options.n_epochs(len(rows)) if n_epochs is None else n_epochs
        callbacks = [*self._own_callbacks(monitor, first_epoch_to_stop, n_epochs), *listeners]
        self.net.keeps_progress = keeps_progress
        self._train(callbacks, rows, train, valid, n_epochs)
        self._spare = None  # which only a stream uses again

    def partial_fit(self, rows: Dataset) -> None:
        """Train for one epoch at a constant rate, all or nothing."""
        self.net.keeps_progress = False  # one epoch: nothing to keep before it ends
        self._train([], rows, torch.arange(len(rows)), None, 1, scheduled=False)

    def _own_callbacks(
        self, monitor: str, first_epoch: int, n_epochs: int
    ) -> list[tuple[str, Callback]]:
        options, tol = self.options, self.options.tol or 0.0
        callbacks: list[tuple[str, Callback]] = []
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
        if options.verbose:
            callbacks.append(("skae_progress", Progress(n_epochs, self.name)))
        return callbacks

    def _train(self, own: list[Any], *arguments: Any, scheduled: bool = True) -> None:
        """Train the net with all that listen; it keeps none of them."""
        net, callbacks = self.net, [*own, *(self.options.callbacks or [])]
        net.callbacks = callbacks
        net.verbose = int(print_logs(callbacks))  # skorch's own print only where this is 1
        net.initialize_callbacks()
        try:
            net.train(*arguments, scheduled)
        finally:
            for _, callback in net.callbacks_:
                if isinstance(callback, Progress):
                    callback.close()
                release(callback)
            net.callbacks = None
            net.callbacks_ = []
        net.module_.eval()

    # ------------------------------------------------------------- going on, and files

    def fork(self, options: TrainingOptions, architecture: Any = None) -> "Trainer":
        """A trainer of a copy of the network, which goes on from this one by these options.

        This one stays as it is until its fork is forked in turn, which writes to its memory.
        """
        spare, self._spare = self._spare, None
        # The memory serves again where it is of the same net: of as many states, of the same
        # solver, for the same parameters.
        if spare is None or not (spare.options == self.options == options and spare.is_like(self)):
            spare = self._copy(options, torch_device(options.device), architecture)
        else:
            spare.net.take_over(self.net)
            if architecture is not None:
                spare.module.architecture = architecture
        # A network of the user's may hold more than tensors: it is copied whole every time.
        if not self.net.foreign_modules:
            spare._spare = self
        return spare

    def is_like(self, other: "Trainer") -> bool:
        """Whether the networks learn by the same parameters, of which callbacks may freeze some."""
        mine, theirs = self.module.parameters(), other.module.parameters()
        return all(a.requires_grad == b.requires_grad for a, b in zip(mine, theirs, strict=True))

    def copy(self) -> "Trainer":
        """The same with a network of its own."""
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
        new.net.go_on_from(self.net)
        return new

    def state(self) -> dict[str, Any]:
        """Weights and states of optimisers as arrays, the history as lists."""
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
        """A trainer as it was saved, around a module like the one that it had."""
        module.load_state_dict(to_tensors(state["weights"]))
        options = replace(options, solver=state["solver"])
        try:
            trainer = cls(module, options, **more)
        except ValueError:  # fitted on a device that is not here
            trainer = cls(module, options, device=torch.device("cpu"), **more)
        trainer.net.resume(to_tensors(state["optimizers"]), state["history"])
        trainer.module.eval()
        return trainer


def split_rows(n_rows: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of rows to train on, in random order, and of a share that is held out."""
    n_valid = ceil(fraction * n_rows)
    if n_valid >= n_rows:
        raise ValueError(
            f"validation_fraction={fraction} of {n_rows} rows leaves none to train on."
        )
    order = torch.randperm(n_rows, generator=torch.Generator().manual_seed(seed + 1))
    return order[n_valid:], order[:n_valid].sort().values


def torch_device(name: str) -> torch.device:
    """The device of this name, which has to be there; "auto" takes a GPU if there is one."""
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


def slices(n_rows: int) -> Iterator[slice]:
    """Slices of as many rows as go through a network at once."""
    for start in range(0, n_rows, _INFERENCE_ROWS):
        yield slice(start, min(start + _INFERENCE_ROWS, n_rows))


def batches(rows: Dataset) -> Iterator[tuple[slice, Batch]]:
    """Rows in order, in pieces that fit into memory."""
    for part in slices(len(rows)):
        yield part, rows.batch(part)
