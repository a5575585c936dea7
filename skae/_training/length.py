"""How long to train: as long as held-out rows gain by it."""

from math import inf, isfinite
from statistics import mean
from typing import Any

from skorch.callbacks import Callback

from skae._training.at_rest import held_out_figure
from skae._training.callbacks import TrainingStopped
from skae._training.loader import Subset

# Steps between the first looks at held-out rows; later ones follow at this ratio.
_FIRST_LOOKS, _RATIO = 20, 1.05
# A trial ends when so many steps, and half as many as the best state took, have gained nothing.
_PATIENCE, _SHARE = 500, 0.5
# How much better a later figure has to be to count: nats per row, or the logarithm of an error.
_NEAR = 0.001
# How much worse than the start is no noise.
_CLEARLY = 0.05


class HeldOutTrial(Callback):
    """Looks, as training goes on, at how well held-out rows are explained.

    Parameters
    ----------
    valid : Subset
        The rows.
    first_epoch : int
        Before it figures may be high by design.
    counts_start : bool
        Whether the start is a state to keep.
    stops : bool
        Whether training ends where it gains nothing.
    """

    def __init__(self, valid: Subset, *, first_epoch: int, counts_start: bool, stops: bool) -> None:
        self.valid, self.first_epoch = valid, first_epoch
        self.counts_start, self.stops = counts_start, stops

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Look at the start."""
        self.looks = Looks(self.counts_start)
        self.n_steps = self.next_look = 0
        if self.counts_start:
            self._look(net)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Look at held-out rows, if it is time, and stop when they gain no more."""
        self.n_steps += net.steps_per_epoch
        if len(net.history) <= self.first_epoch or self.n_steps < self.next_look:
            return
        self.next_look = max(self.n_steps + _FIRST_LOOKS, int(_RATIO * self.n_steps))
        self._look(net)
        best = self.looks.best_steps
        if self.stops and self.n_steps - best >= max(_PATIENCE, _SHARE * best):
            raise TrainingStopped

    def _look(self, net: Any) -> None:
        figure = held_out_figure(net, self.valid)
        self.looks.steps.append(self.n_steps)
        self.looks.figures.append(figure if isfinite(figure) else inf)


class Looks:
    """Figures of held-out rows after numbers of steps."""

    def __init__(self, counts_start: bool) -> None:
        self.counts_start = counts_start
        self.steps: list[int] = []
        self.figures: list[float] = []

    @classmethod
    def mean_of(cls, several: "list[Looks]") -> "Looks":
        """The means of figures after the same numbers of steps, as far as all have them."""
        found = cls(several[0].counts_start)
        found.steps = several[0].steps[: min(len(looks.steps) for looks in several)]
        of_steps = zip(*(looks.figures for looks in several), strict=False)
        found.figures = [mean(figures) for figures in of_steps]
        return found

    @property
    def best_steps(self) -> int:
        """The fewest that are about best, by means of each figure and its neighbours."""
        means = [mean(self.figures[max(0, i - 1) : i + 2]) for i in range(len(self.figures))]
        if self.counts_start:  # whose neighbour is no like of it
            means[:2] = [self.figures[0], *(mean(self.figures[1:3]) for _ in means[1:2])]
        best = min(means)
        return next(s for s, m in zip(self.steps, means, strict=True) if m <= best + _NEAR)

    @property
    def only_loses(self) -> bool:
        """Whether even the best that followed the start is clearly worse."""
        return min(self.figures[1:], default=0.0) > self.figures[0] + _CLEARLY

    @property
    def still_gains(self) -> bool:
        """Whether the best figure is among the last."""
        return bool(self.best_steps) and self.steps[-1] < 1.25 * self.best_steps
