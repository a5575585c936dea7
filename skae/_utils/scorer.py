"""Scorers: functions of a fitted estimator and rows, for `scoring` of searches."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Self

from sklearn.utils.metadata_routing import MetadataRequest


class Scorer:
    """A function (estimator, X, y, sample_weight) -> float that can request `sample_weight`.

    It is used as a decorator. The decorated name is pickled by reference, as a function is.
    """

    __name__: str

    def __init__(self, function: Callable[..., float], weights: bool | str | None = None) -> None:
        update_wrapper(self, function)
        self.__module__ = "skae.metrics"  # the public module, to which saved searches refer
        self._function = function
        self._weights = weights
        self._base = self

    def __call__(self, estimator: Any, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Score rows; greater is better."""
        return self._function(estimator, X, y, sample_weight)

    def set_score_request(self, *, sample_weight: bool | str | None) -> Self:
        """Return a scorer that says whether searches pass `sample_weight` to it.

        It has an effect with `sklearn.set_config(enable_metadata_routing=True)`.

        Parameters
        ----------
        sample_weight : bool, str or None
            True requests the weights, False does not use them, None raises an error if weights are
            given, and a string is the name under which they are given.

        Returns
        -------
        scorer : callable
            Another scorer. This one does not change.
        """
        new = type(self)(self._function, sample_weight)
        new._base = self._base
        return new

    def get_metadata_routing(self) -> MetadataRequest:
        """Return the metadata request of the scorer."""
        request = MetadataRequest(owner=self)
        request.score.add_request(param="sample_weight", alias=self._weights)
        return request

    def _accept_sample_weight(self) -> bool:
        """Tell searches with several scorers that weights can be passed."""
        return True

    def __repr__(self) -> str:
        name = f"{self.__module__}.{self.__name__}"
        asked = self._base is not self
        return f"{name}.set_score_request(sample_weight={self._weights!r})" if asked else name

    def __reduce__(self) -> Any:
        return self.__name__ if self._base is self else (_requesting, (self._base, self._weights))


def _requesting(base: Scorer, weights: bool | str | None) -> Scorer:
    return base.set_score_request(sample_weight=weights)
