"""The loop of EM: until a step gains nothing more, max_iter, or Ctrl-C."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

Step = Callable[[Any, tuple[float, ...]], tuple[float, Any | None]]


class EMRun(NamedTuple):
    """Where EM ended, the log-likelihood before every step, and what ended it.

    After an interrupt the state is what the last complete step left, and the history holds
    the complete steps.
    """

    state: Any
    log_likelihoods: tuple[float, ...]
    ended_by: Literal["convergence", "max_iter", "interrupt"]


def run_em(step: Step, start: Any, max_iter: int, *, keeps_progress: bool = False) -> EMRun:
    """Repeat `step`, which must leave the state that it is given as it is.

    Parameters
    ----------
    step : callable
        Of a state and the log-likelihoods before it: the log-likelihood of the state, and
        the next state, or None if EM has converged.
    start : object
        The first state.
    max_iter : int
        Most steps.
    keeps_progress : bool, default=False
        Whether a Ctrl-C after the first complete step ends the loop; else it is raised.

    Returns
    -------
    run : EMRun
    """
    # State and history change together, by one assignment, which no interrupt can tear.
    complete: tuple[Any, tuple[float, ...]] = (start, ())
    try:
        for _ in range(max_iter):
            state, history = complete
            nats, following = step(state, history)
            history = (*history, nats)
            if following is None:
                return EMRun(state, history, "convergence")
            complete = (following, history)
    except KeyboardInterrupt:
        if not (keeps_progress and complete[1]):
            raise
        return EMRun(*complete, "interrupt")
    return EMRun(*complete, "max_iter")
