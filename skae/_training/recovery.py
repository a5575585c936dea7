"""The epochs of a training, and what is left of one that diverged or was interrupted."""

import warnings
from math import inf, isfinite
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from skae._training.at_rest import loss_at_rest
from skae._training.callbacks import Diverged, TrainingStopped
from skae._training.together import fit_epochs
from skae._utils.interrupts import warn_of_interruption

# Training rows whose loss tells whether a state is of use.
_CHECKED_ROWS = 64


def run_epochs(net: Any, epochs: int) -> None:
    """Train a `Net` for some epochs; go back to its last state that is complete and of use.

    A first Ctrl-C ends the training if the net keeps its progress, and is raised otherwise.
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
    """Go back to the newest state before an epoch, if there is one."""
    epoch = net.snapshot_.go_back(before)
    if epoch is not None:
        del net.history_[epoch:]
    return epoch is not None


def _leave_divergence(net: Any, defect: str | None) -> None:
    """Go back from a state that is of no use to the newest one that is.

    The loss of an epoch is measured before its steps: it says nothing of the last one.
    """
    defect = defect or _defect(net)
    if defect is None:
        return
    advice = (
        f"Training diverged in epoch {len(net.history)}: {defect}. Lower learning_rate_init "
        f"(now {net.lr}) or rescale X."
    )
    while defect is not None:
        if not _go_back(net, len(net.history)):
            raise ValueError(advice)
        defect = _defect(net)
    warnings.warn(
        f"{advice} The state after epoch {len(net.history)} is kept.",
        ConvergenceWarning,
        stacklevel=2,
    )


def _defect(net: Any) -> str | None:
    """Why the module as it is now would be of no use, if so."""
    if not all(bool(p.isfinite().all()) for p in net.module_.parameters() if p.requires_grad):
        return "weights are not finite"
    rows, index = net.subsets_[0].rows, net.subsets_[0].index
    some = index[:: -(-len(index) // _CHECKED_ROWS)]
    loss = loss_at_rest(net, [rows.batch(some.to(rows.index_device))])
    return None if isfinite(loss) else f"the loss after it is {loss}"
