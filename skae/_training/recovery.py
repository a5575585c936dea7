"""The epochs of a training, and recovery if it diverges or is interrupted."""

from math import inf
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from skae._training.at_rest import defect_of
from skae._training.callbacks import Diverged, TrainingStopped
from skae._training.together import fit_epochs
from skae._utils.interrupts import warn_of_interruption
from skae._utils.warning import warn


class DivergenceError(ValueError):
    """Raised if training diverged and no usable state is left.

    The type tells it from errors of parameters and of the user's code, such as callbacks.
    """


def run_epochs(net: Any, epochs: int) -> None:
    """Train a `Net` for some epochs; restore its last complete and usable state at the end.

    The first Ctrl-C ends training if the net keeps its progress, and raises KeyboardInterrupt
    otherwise.
    """
    defect = None
    try:
        fit_epochs(net, epochs)
    except TrainingStopped:
        pass
    except Diverged as error:
        defect = str(error)
    except KeyboardInterrupt:
        if not net.keeps_progress or net.snapshot_.epoch < 0:
            raise
        _go_back(net, inf)
        net.interrupted_ = True
        warn_of_interruption("epoch", net.snapshot_.epoch)
    _leave_divergence(net, defect)


def _go_back(net: Any, before: float) -> bool:
    """Restore the newest state from before an epoch; return whether there is one."""
    epoch = net.snapshot_.go_back(before)
    if epoch is not None:
        del net.history_[epoch:]
    return epoch is not None


def _leave_divergence(net: Any, defect: str | None) -> None:
    """Restore the newest usable state if the present one is not usable.

    The loss of an epoch is measured before its steps, and therefore says nothing about the last
    step.
    """
    defect = defect or defect_of(net)
    if defect is None:
        return
    advice = (
        f"Training diverged in epoch {len(net.history)}: {defect}. Lower learning_rate_init "
        f"(now {net.lr}) or rescale X."
    )
    while defect is not None:
        if not _go_back(net, len(net.history)):
            raise DivergenceError(advice)
        defect = defect_of(net)
    warn(f"{advice} The state after epoch {len(net.history)} is kept.", ConvergenceWarning)
