"""The loop of EM, which ends at convergence, after max_iter steps, or at Ctrl-C."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

Step = Callable[[Any, tuple[float, ...]], tuple[float, Any | None]]


class EMRun(NamedTuple):
    """The final state of EM, the log-likelihood before every step, and the reason why EM ended.

    After an interruption, the state is that after the last complete step, and the log-likelihoods
    are those of the complete steps.
    """

    state: Any
    log_likelihoods: tuple[float, ...]
    ended_by: Literal["convergence", "max_iter", "interrupt"]


def run_em(step: Step, start: Any, max_iter: int, *, keeps_progress: bool = False) -> EMRun:
    """Repeat `step`, which must not change the state that it is given.

    Parameters
    ----------
    step : callable
        Function of a state and the log-likelihoods of the earlier states. It returns the
        log-likelihood of the state, and the next state, or None if EM has converged.
    start : object
        The first state.
    max_iter : int
        Maximum number of steps.
    keeps_progress : bool, default=False
        Whether Ctrl-C after the first complete step ends the loop. Otherwise KeyboardInterrupt is
        raised.

    Returns
    -------
    run : EMRun
    """
    # State and history change by a single assignment, so that Ctrl-C cannot leave only one changed.
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
