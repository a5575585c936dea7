"""Parameters of callbacks as nested parameters of their estimator."""

from __future__ import annotations

import copyreg
from typing import Any, Self

from skae._base import BaseAutoencoder
from skae._training.callbacks import check_copies, named_callbacks, set_callback_params
from skae._utils.bases import CallbackSupportMixin
from skae._utils.validation import clone_parameters


class CallbackParametersMixin(CallbackSupportMixin, BaseAutoencoder):
    """Nested parameters `callbacks__<name>__<parameter>`, for estimators with callbacks."""

    callbacks: list[Any] | tuple[Any, ...] | None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters of this estimator.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include parameters of nested objects. Those of callbacks are named
            ``callbacks__<name>__<parameter>``. The name of a callback is the name given with it
            in a pair, or the name of its class.

        Returns
        -------
        params : dict
            Parameters by name.
        """
        params: dict[str, Any] = super().get_params(deep=deep)
        for name, callback in named_callbacks(self.callbacks) if deep else ():
            params[f"callbacks__{name}"] = callback
            if not isinstance(callback, type):
                theirs = callback.get_params(deep=False)
                params |= {f"callbacks__{name}__{key}": value for key, value in theirs.items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set the parameters of this estimator.

        Parameters
        ----------
        **params : dict
            Parameters by name. ``callbacks__<name>`` replaces a callback, and
            ``callbacks__<name>__<parameter>`` sets a parameter of a callback.

        Returns
        -------
        self : object
            The estimator.
        """
        of_callbacks = {n: params.pop(n) for n in [*params] if n.startswith("callbacks__")}
        super().set_params(**params)
        if of_callbacks:
            self.callbacks = set_callback_params(self.callbacks, of_callbacks)
        return self

    def __sklearn_clone__(self) -> Self:
        try:
            return clone_parameters(self)
        except Exception:
            advice = "Create open files, locks and the like in its method initialize instead."
            check_copies(self.callbacks, advice)
            raise

    def __reduce_ex__(self, protocol: Any) -> Any:
        advice = "Call set_params(callbacks=None) before saving the model: it works without them."
        check_copies(self.callbacks, advice)
        return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]
