"""Checkpoints: the state of each training of a fit, in files from which a killed fit goes on.

The files of a fit are named by a digest of its estimator, its parameters and its rows; those of
each training also by the seed of the network, and by the place of the training in the fit. Fits
that differ in any of these therefore never share a file. Each training has one file, which holds
its state after the last epoch that was written, or its final state.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback

from skae import __version__
from skae._training import array_files
from skae._training.callbacks import StoppedFromOutside
from skae._training.digests import digest_of, parameters_of
from skae._training.net_state import Parts, checkpoint_of, is_usable, parts_of_callbacks, restore
from skae._training.ranks import computed_once, is_first_rank, present_ranks
from skae._utils.validation import Interval
from skae._utils.warning import warn

# scikit-learn's constraints of the parameters.
CHECKPOINT_CONSTRAINTS: dict[str, list[Any]] = {
    "checkpoint_dir": [str, os.PathLike, None],
    "checkpoint_every": [Interval(Integral, 1, None, closed="left")],
}

# Values of parameters that files of earlier versions lack.
LATER_PARAMETERS = {
    "checkpoint_dir": None,
    "checkpoint_every": 1,
    "distributed": False,
    "weight_averaging": 0.0,
}
# Number of the format of the files. It is raised when their content changes.
_FORMAT = 1
_KIND = "skae checkpoint"


class StoredState:
    """A state in a file.

    Parameters
    ----------
    path : Path
        The file, which need not exist.
    key : str
        Digest of all that determines the state.
    files : FitFiles
        The files of the fit.
    """

    def __init__(self, path: Path, key: str, files: "FitFiles") -> None:
        self.path, self.key, self.files = path, key, files
        self._is_warned = False
        files.add(path)

    def beside(self, name: str, key: str) -> "StoredState":
        """Return another file of the same fit."""
        return StoredState(self.path.with_name(f"{name}-{key}.npz"), key, self.files)

    def remove(self) -> None:
        """Remove the file, if there is one."""
        if is_first_rank():
            array_files.remove_partial(self.path)
            with suppress(OSError):
                self.path.unlink()

    def load(self) -> dict[str, Any] | None:
        """Return the state, or None if there is no file; only the first rank reads it."""
        ranks = present_ranks()
        return self._loaded() if ranks is None else ranks.of_first(self._loaded)

    def _loaded(self) -> dict[str, Any] | None:
        array_files.remove_partial(self.path)
        try:
            found = array_files.read(self.path)
        except FileNotFoundError:
            return None
        except array_files.UnreadableFile as error:
            if isinstance(error.__cause__, OSError):
                raise ValueError(
                    f"The checkpoint {str(self.path)!r} cannot be read ({error}). Make it "
                    "readable, or choose another checkpoint_dir."
                ) from error
            raise _refused(self.path, f"is incomplete or damaged ({error})") from error
        if not isinstance(found, dict) or found.get("kind") != _KIND:
            raise _refused(self.path, "is not a checkpoint of skae")
        here, there = _versions(), found.get("versions")
        if there != here:
            raise _refused(
                self.path,
                f"was written by other versions ({_listed(there)}) than those in use "
                f"({_listed(here)}), with which training would not give the same result",
            )
        if found.get("key") != self.key:
            raise _refused(self.path, "belongs to another training")
        state: dict[str, Any] = found["state"]
        return state

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Say of errors in the block, which restores the state, that it does not fit."""
        try:
            yield
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            text = " ".join(str(error).split())
            raise _refused(self.path, f"does not fit the training ({text})") from error

    def save(self, state: dict[str, Any], what: str) -> None:
        """Replace the file; if that is not possible, warn, and leave the file as it was.

        `what` names the state in messages, such as "after epoch 3".
        """
        if not is_first_rank():
            return
        content = {"kind": _KIND, "versions": _versions(), "key": self.key, "state": state}
        try:
            array_files.write(self.path, content)
        except TypeError as error:
            raise TypeError(
                f"checkpoint_dir={str(self.path.parent)!r} cannot be used: the history, or the "
                f"state of a network or a callback, has a value of another kind. {error}"
            ) from error
        except OSError as error:
            if not self._is_warned:
                self._is_warned = True
                warn(
                    f"The checkpoint {what} could not be written ({error}). Training goes on, and "
                    "writes later states if it can; an earlier checkpoint is unchanged. Free "
                    f"space on the disk of {str(self.path.parent)!r}."
                )


class Checkpoint(Callback):
    """The checkpoint of one training of a net.

    The training loop calls its methods when all other callbacks have been called.

    Parameters
    ----------
    stored : StoredState
        The file.
    every : int
        Number of epochs after which the state is written.
    keeps_weights : bool
        Whether weights are part of the final state. They are not needed if the callbacks hold the
        result of the training.
    """

    def __init__(self, stored: StoredState, every: int, *, keeps_weights: bool = True) -> None:
        self.stored, self.every, self.keeps_weights = stored, every, keeps_weights
        self.last_epoch = 0
        self._parts: Parts = {}

    def resume(self, net: Any, epochs: int) -> int:
        """Restore the state in the file, if there is one; return the number of epochs to train."""
        self.last_epoch = len(net.history) + epochs
        self._parts = parts_of_callbacks(net)
        state = self.stored.load()
        if state is None:
            return epochs
        with self.stored.restoring():
            restore(net, state)
            return 0 if state["is_complete"] else self.last_epoch - len(net.history)

    def after_epoch(self, net: Any, stop: BaseException | None) -> None:
        """Write the state after an epoch, if it is time; `stop` tells what ends training."""
        epoch = len(net.history)
        if stop is not None or epoch >= self.last_epoch:
            self.save_final(net, stop)
        elif epoch % self.every == 0:
            self._save(net, is_complete=False)

    def save_final(self, net: Any, stop: BaseException | None = None) -> None:
        """Write the state of a net whose training has ended."""
        from_outside = isinstance(stop, (StoppedFromOutside, KeyboardInterrupt))
        self._save(net, is_complete=not from_outside)
        if is_first_rank():
            array_files.remove_partial(self.stored.path)

    def _save(self, net: Any, is_complete: bool) -> None:
        """Write the state, unless training cannot go on from it."""
        if is_usable(net):
            state = checkpoint_of(net, self.keeps_weights or not is_complete, self._parts)
            self.stored.save(
                state | {"is_complete": is_complete}, f"after epoch {len(net.history)}"
            )

    def is_complete(self) -> bool:
        """Return whether the file holds the final state."""
        state = self.stored.load()
        return state is not None and bool(state.get("is_complete"))


class FitFiles:
    """The checkpoints of a fit in a folder.

    Parameters
    ----------
    folder : Path
        The folder, which is made if it does not exist.
    every : int
        Number of epochs after which the state of a training is written.
    name : str
        Name of the estimator's class, with which the names of the files begin.
    key : str
        Digest of the estimator, its parameters and its rows.
    outer : FitFiles or None
        The files of the fit that contains this one.
    """

    def __init__(
        self, folder: Path, every: int, name: str, key: str, outer: "FitFiles | None"
    ) -> None:
        self.folder, self.every, self.name, self.key, self.outer = folder, every, name, key, outer
        self._seed_file: Path | None = None
        self._paths: set[Path] = set()

    def generator(self, random_state: Any, rng: np.random.RandomState) -> np.random.RandomState:
        """Return the generator of the fit: the given one if an integer determines it.

        Otherwise its seed is drawn from the given one and stored, so that the fit that goes on has
        the same seed.
        """
        if isinstance(random_state, Integral):
            return rng
        stored = self.stored("seed")
        self._seed_file = stored.path
        found = stored.load()
        if found is None:
            found = {"seed": int(rng.randint(2**31 - 1))}
            stored.save(found, "of the seed")
        return np.random.RandomState(found["seed"])

    def stored(self, name: str, *more: Any) -> StoredState:
        """Return the file of a part of the fit, which the name and further values identify."""
        key = digest_of(self.key, name, *more)
        return StoredState(self.folder / f"{self.name}-{name}-{key}.npz", key, self)

    def of_training(self, name: str, *more: Any, keeps_weights: bool = True) -> Checkpoint:
        """Return the checkpoint of a training, which the name and further values identify."""
        return Checkpoint(self.stored(name, *more), self.every, keeps_weights=keeps_weights)

    def add(self, path: Path) -> None:
        """Record a file of the fit, also for the fits that contain it."""
        self._paths.add(path)
        if self.outer is not None:
            self.outer.add(path)

    def complete(self) -> None:
        """Remove the files of a complete fit whose seed was drawn: no other fit could use them."""
        if self._seed_file is not None and is_first_rank():
            for path in (*(self._paths - {self._seed_file}), self._seed_file):
                array_files.remove_partial(path)
                with suppress(OSError):
                    path.unlink()


_present: ContextVar[FitFiles | None] = ContextVar("skae_checkpoints_of_fit", default=None)


def present_files() -> FitFiles | None:
    """Return the files of the present fit; None if it writes no checkpoints."""
    return _present.get()


@contextmanager
def checkpoints_of_fit(
    estimator: Any, rng: np.random.RandomState, *given: Any
) -> Iterator[np.random.RandomState]:
    """Write the checkpoints of trainings in the block, if the estimator has a folder for them.

    An estimator without a folder takes that of the fit that contains its own. `given` are the rows
    and all else that determines the result of the fit beside the parameters. Yields the generator
    of the fit: the given one, or one with the seed of the fit that goes on.
    """
    outer = _present.get()
    folder, every = estimator.checkpoint_dir, int(estimator.checkpoint_every)
    if folder is None and outer is not None:
        folder, every = outer.folder, outer.every
    if folder is None:
        yield rng
        return
    path = computed_once(lambda: _made(folder))
    try:
        table = getattr(estimator, "_table", None)  # the likelihood of each column
        key = digest_of(type(estimator), parameters_of(estimator), table, *given)
    except Exception as error:
        raise TypeError(
            f"checkpoint_dir={folder!r} cannot be used with these parameters, because nothing "
            f"tells whether a later fit has the same ones: {error}"
        ) from error
    files = FitFiles(path, every, type(estimator).__name__, key, outer)
    token = _present.set(files)
    try:
        yield files.generator(estimator.random_state, rng)
        files.complete()
    finally:
        _present.reset(token)


def _made(folder: Any) -> Path:
    """Return the folder; it is made, and a file is written to it for a moment."""
    try:
        if not os.fspath(folder):
            raise ValueError("the name is empty")
        path = Path(folder).expanduser().absolute()
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path) as file:
            file.write(b"a test")
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"checkpoint_dir={os.fspath(folder)!r} must be a folder in which files can be "
            f"written: {error}."
        ) from error
    return path


def _versions() -> dict[str, Any]:
    """Return the versions on which the content of a file and the result of training depend."""
    return {"skae": __version__, "torch": str(torch.__version__), "format": _FORMAT}


def _listed(versions: Any) -> str:
    if not isinstance(versions, dict):
        return "unknown"
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _refused(path: Path, why: str) -> ValueError:
    return ValueError(
        f"The checkpoint {str(path)!r} {why}. It is not used. To train from the beginning, delete "
        "the file, or choose another checkpoint_dir."
    )
