"""The number of epochs, chosen by the held-out rows."""

from math import inf, isfinite
from statistics import mean
from typing import Any

from skorch.callbacks import Callback

from skae._training.at_rest import held_out_figure
from skae._training.callbacks import TrainingStopped
from skae._training.loader import Subset

# Number of steps between the first evaluations of held-out rows. Later evaluations follow at this
# ratio of steps.
_FIRST_LOOKS, _RATIO = 20, 1.05
# A trial ends after this many steps without improvement, which must also be this fraction of the
# steps to the best evaluation.
_PATIENCE, _SHARE = 500, 0.5
# A later evaluation is better only if it improves by this much, in nats per row or in the logarithm
# of the squared error.
_NEAR = 0.001
# An evaluation that is worse than the initial one by more than this is not explained by noise.
_CLEARLY = 0.05


class HeldOutTrial(Callback):
    """Evaluates held-out rows during training.

    Parameters
    ----------
    valid : Subset
        The held-out rows.
    first_epoch : int
        Number of epochs in which the loss may be high by design. They are not evaluated.
    counts_start : bool
        Whether the initial model is a candidate for the best.
    stops : bool
        Whether training ends when the held-out rows no longer improve.
    """

    def __init__(self, valid: Subset, *, first_epoch: int, counts_start: bool, stops: bool) -> None:
        self.valid, self.first_epoch = valid, first_epoch
        self.counts_start, self.stops = counts_start, stops

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Evaluate the initial model."""
        self.looks = Looks(self.counts_start)
        self.n_steps = self.next_look = 0
        if self.counts_start:
            self._look(net)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Evaluate the held-out rows if it is time, and end training if they no longer improve."""
        self.n_steps += net.steps_per_epoch
        if len(net.history) <= self.first_epoch or self.n_steps < self.next_look:
            return
        self.next_look = max(self.n_steps + _FIRST_LOOKS, int(_RATIO * self.n_steps))
        self._look(net)
        best = self.looks.best_steps
        if self.stops and self.n_steps - best >= max(_PATIENCE, _SHARE * best):
            raise TrainingStopped

    def state_dict(self) -> dict[str, Any]:
        """Return the evaluations and their schedule."""
        return {
            "steps": self.looks.steps,
            "figures": self.looks.figures,
            "n_steps": self.n_steps,
            "next_look": self.next_look,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the evaluations and their schedule."""
        self.looks.steps, self.looks.figures = state["steps"], state["figures"]
        self.n_steps, self.next_look = state["n_steps"], state["next_look"]

    def _look(self, net: Any) -> None:
        figure = held_out_figure(net, self.valid)
        self.looks.steps.append(self.n_steps)
        self.looks.figures.append(figure if isfinite(figure) else inf)


class Looks:
    """Results of the evaluations of held-out rows, with the numbers of steps before each."""

    def __init__(self, counts_start: bool) -> None:
        self.counts_start = counts_start
        self.steps: list[int] = []
        self.figures: list[float] = []

    @classmethod
    def mean_of(cls, several: "list[Looks]") -> "Looks":
        """Return the mean results of trials, for the numbers of steps that all trials have."""
        found = cls(several[0].counts_start)
        found.steps = several[0].steps[: min(len(looks.steps) for looks in several)]
        of_steps = zip(*(looks.figures for looks in several), strict=False)
        found.figures = [mean(figures) for figures in of_steps]
        return found

    @property
    def best_steps(self) -> int:
        """Return the smallest number of steps with a nearly optimal result.

        Each result is smoothed by the mean of itself and its neighbours.
        """
        means = [mean(self.figures[max(0, i - 1) : i + 2]) for i in range(len(self.figures))]
        # the initial model is not smoothed, because it differs much from the next
        if self.counts_start:
            means[:2] = [self.figures[0], *(mean(self.figures[1:3]) for _ in means[1:2])]
        best = min(means)
        return next(s for s, m in zip(self.steps, means, strict=True) if m <= best + _NEAR)

    @property
    def only_loses(self) -> bool:
        """Return whether the best result after the initial one is clearly worse than it."""
        return min(self.figures[1:], default=0.0) > self.figures[0] + _CLEARLY

    @property
    def still_gains(self) -> bool:
        """Return whether the best result is among the last ones."""
        return bool(self.best_steps) and self.steps[-1] < 1.25 * self.best_steps
