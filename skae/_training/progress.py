"""What `verbose` shows of a training: its name, the epochs and the losses.

In a terminal, and in a notebook with ipywidgets, this is a bar. Elsewhere, for example in a log
file or in a worker process, it is a few lines, because a bar would overwrite itself there. Networks
that are trained as a stack have one bar or one sequence of lines together.
"""

import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.util import find_spec
from time import perf_counter
from typing import Any

from skorch.callbacks import Callback
from tqdm import TqdmWarning
from tqdm import tqdm as terminal_bar

from skae._utils.fit_names import Part, described, present_parts

# Seconds after which a bar changes at the earliest.
_REFRESH = 0.25
# A line is printed after a tenth of the epochs, but not within the first number of seconds after
# the line before; and whenever there was no line for the second number of seconds.
_SHORTEST, _LONGEST = 10.0, 60.0
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"

# Whether a bar is open. There is only one, because two bars would overwrite each other.
_bars: list[Any] = []
_lock = threading.RLock()


class Progress(Callback):
    """Shows the training of one network.

    Parameters
    ----------
    n_epochs : int
        Number of epochs if training does not end earlier.
    what : str
        What is trained, such as "VAE network".
    verbose : int
        With 2 or more, there is a line for every epoch.
    """

    def __init__(self, n_epochs: int, what: str, verbose: int) -> None:
        self.n_epochs, self.what, self.verbose = n_epochs, what, verbose
        self.parts = present_parts()
        self.is_shown_elsewhere = False  # as one of several
        self.n_done = self.best_epoch = 0
        self.best: dict[str, float] = {}
        self._display: Display | None = None

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Open the bar in the first epoch; before, the training may wait for others."""
        if self._display is None and not self.is_shown_elsewhere:
            title = titled(self.what, [self.parts])
            self._display = Display(title, self.n_epochs, self.verbose, self.n_done)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Show the losses of the epoch, if it is time."""
        self.n_done += 1
        self.best = net.best_
        if last_epoch(net).get(f"{_monitor(self.best)}_loss_best"):
            self.best_epoch = self.n_done
        if self._display is not None:
            self._display.update(self.n_done, lambda: self._losses(net))

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Show the result."""
        self.close(net)

    def state_dict(self) -> dict[str, int]:
        """Return the number of epochs, and the best of them."""
        return {"n_done": self.n_done, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Set the number of epochs, and the best of them."""
        self.n_done, self.best_epoch = state["n_done"], state["best_epoch"]

    def close(self, net: Any, is_complete: bool = True) -> None:
        """Show the result, or where training stopped; nothing if it has been shown."""
        display, self._display = self._display, None
        if display is not None:
            display.close(self.n_done, lambda: self._losses(net), is_complete)

    def _losses(self, net: Any) -> str:
        return losses_of([last_epoch(net)], [self.best], best_epoch=self.best_epoch)


class JointProgress:
    """Shows the training of several networks together.

    Parameters
    ----------
    nets : list of Net
        The nets; those without a callback `Progress` are not shown.
    n_done : int
        Number of epochs that are complete.
    """

    def __init__(self, nets: list[Any], n_done: int = 0) -> None:
        shown = [(net, own) for net in nets for own in progress_of(net)]
        self._nets, own = [net for net, _ in shown], [progress for _, progress in shown]
        self._display: Display | None = None
        self._n_done = n_done
        if own:
            title = titled(own[0].what, [progress.parts for progress in own])
            n_epochs = max(progress.n_epochs for progress in own)
            verbose = max(progress.verbose for progress in own)
            self._display = Display(title, n_epochs, verbose, n_done)
        for progress in own:
            progress.is_shown_elsewhere = True

    def update(self) -> None:
        """Show the losses of an epoch, if it is time."""
        self._n_done += 1
        if self._display is not None:
            self._display.update(self._n_done, self._losses)

    def close(self, is_complete: bool) -> None:
        """Show the result."""
        if self._display is not None:
            self._display.close(self._n_done, self._losses, is_complete)

    def _losses(self) -> str:
        return losses_of([last_epoch(net) for net in self._nets], [n.best_ for n in self._nets])


class Display:
    """A bar, or lines where a bar cannot be shown or every epoch is asked for.

    `n_before` is the number of epochs that were trained before, by a `fit` that was killed.
    """

    def __init__(self, title: str, n_epochs: int, verbose: int, n_before: int = 0) -> None:
        self.title, self.n_epochs, self.n_before = title, n_epochs, n_before
        self.shows_all = verbose > 1
        self.begin = self.last = perf_counter()
        self.n_tenths = -1
        self.bar: Any = None
        open_bar = None if self.shows_all else _how_to_open_a_bar()
        with _lock:
            if open_bar is not None and not _bars:
                shown = {"desc": title, "bar_format": _BAR, "leave": True, "initial": n_before}
                self.bar = open_bar(total=n_epochs, **shown)
                _bars.append(self.bar)

    def update(self, n_done: int, losses: Callable[[], str]) -> None:
        """Show an epoch; `losses` is called only if it is time."""
        now = perf_counter()
        if self.bar is not None:
            if now - self.last >= _REFRESH:
                self._refresh(n_done, losses())
                self.last = now
            return
        n_tenths = 10 * n_done // self.n_epochs
        is_next = n_tenths > self.n_tenths and now - self.last >= _SHORTEST
        if not (is_next or self.shows_all or now - self.last >= _LONGEST):
            return
        if n_done < self.n_epochs or self.shows_all:  # the result has a line of its own
            self.last, self.n_tenths = now, n_tenths
            _print_line(_joined(f"{self.title}: epoch {n_done} of {self.n_epochs}", losses()))

    def close(self, n_done: int, losses: Callable[[], str], is_complete: bool) -> None:
        """Show the result, or where training stopped."""
        if self.bar is not None:
            with _lock:
                if is_complete:
                    self.bar.total = n_done
                self._refresh(n_done, losses())
                self.bar.close()
                _bars.remove(self.bar)
            return
        seconds = f"{perf_counter() - self.begin:.1f} s"
        all_of_them = "" if n_done == self.n_epochs else f"{n_done} of "
        last = f", the last {n_done - self.n_before}" if self.n_before else ""
        text = f"{all_of_them}{self.n_epochs} epochs{last} in {seconds}"
        if not is_complete:
            text = f"stopped in epoch {n_done + 1} of {self.n_epochs} after {seconds}"
        _print_line(_joined(f"{self.title}: {text}", losses()))

    def _refresh(self, n_done: int, losses: str) -> None:
        self.bar.n = n_done
        self.bar.set_postfix_str(losses)


def titled(what: str, parts: Sequence[tuple[Part, ...]]) -> str:
    """The title of one or several fits, such as "VAE network (fold 3 of 5, n_components=8)"."""
    within = described(parts)
    several = f"{len(parts)} fits of " if len(parts) > 1 else ""
    return f"{several}{what}" + (f" ({within})" if within else "")


def losses_of(
    epochs: Sequence[dict[str, Any]], best: Sequence[dict[str, float]], best_epoch: int = 0
) -> str:
    """The losses of an epoch of one or several trainings, by the names that the history has.

    They begin with the most important one, because a terminal may be too narrow for all. `best`
    are the smallest losses so far, and `best_epoch` is their epoch, or 0. Empty entries of
    trainings without a complete epoch do not count.
    """
    epochs, best = [epoch for epoch in epochs if epoch], [values for values in best if values]
    if not epochs or not best:
        return ""
    names = ["train_loss", *(["valid_loss"] if "valid_loss" in epochs[0] else [])]
    texts = [_range(name, epochs) for name in names]
    which = _monitor(best[0])
    since = f", epoch {best_epoch}" if best_epoch else ""
    texts[-1] += f" (best {_ends([values[which] for values in best])}{since})"
    terms = [name for name, value in epochs[0].items() if _is_term(name, value)]
    return ", ".join([*texts, *(_range(name, epochs) for name in terms)])


def last_epoch(net: Any) -> dict[str, Any]:
    """The history of the last epoch whose losses are known; an empty one before."""
    # skorch's own indexing is slow.
    entries = (list.__getitem__(net.history_, -k) for k in range(1, len(net.history_) + 1))
    return next((entry for entry in entries if "train_loss" in entry), {})


def progress_of(net: Any) -> list[Progress]:
    """The callback that shows the training of a net, if there is one."""
    return [callback for _, callback in net.callbacks_ if isinstance(callback, Progress)]


def _monitor(best: dict[str, float]) -> str:
    """The rows whose best loss is shown: held-out rows if there are any."""
    return "valid" if "valid" in best else "train"


def _is_term(name: str, value: Any) -> bool:
    return isinstance(value, float) and name.startswith("train_") and name != "train_loss"


def _range(name: str, epochs: Sequence[dict[str, Any]]) -> str:
    return f"{name}={_ends([epoch[name] for epoch in epochs if name in epoch])}"


def _ends(values: list[float]) -> str:
    """The smallest and the largest value, or the value."""
    first, last = f"{min(values):.5g}", f"{max(values):.5g}"
    return first if first == last else f"{first} to {last}"


def _joined(text: str, losses: str) -> str:
    return f"{text}, {losses}" if losses else text


def _print_line(text: str) -> None:
    """Print a line in one piece, so that lines of several processes do not mix."""
    with _lock:
        if _bars:
            _bars[0].write(text, file=sys.stderr)
        elif sys.stderr is not None:  # it is None in a windowed application
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


def _how_to_open_a_bar() -> Callable[..., Any] | None:
    """The function that opens a bar for this process and its stderr; None if there can be none."""
    if multiprocessing.parent_process() is not None:  # other workers write to the same stderr
        return None
    if _is_notebook():
        if find_spec("ipywidgets") is None:
            return None
        return partial(_notebook_bar(), dynamic_ncols=True)
    try:
        if not sys.stderr.isatty():
            return None
    except (AttributeError, ValueError):  # no stream, or a closed one
        return None
    return partial(_without_thread(terminal_bar), file=sys.stderr, **_size_of_terminal())


def _size_of_terminal() -> dict[str, Any]:
    """tqdm's arguments for the size of the terminal. tqdm 4.70 shows nothing if the size is 0."""
    try:
        is_known = os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        is_known = False
    return {"dynamic_ncols": True} if is_known else {"ncols": 100, "nrows": 25}


def _is_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config


def _notebook_bar() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm.auto import tqdm  # loads ipywidgets
    return _without_thread(tqdm)


@cache
def _without_thread(bar: Any) -> Any:
    """The class without tqdm's thread and lock of processes, which a fork would copy."""
    kind: Any = type("Bar", (bar,), {"monitor_interval": 0})
    kind.set_lock(_lock)
    return kind
