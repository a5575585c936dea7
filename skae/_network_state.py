"""Copies and files of estimators with a network."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Self

from skae._base import BaseAutoencoder
from skae._modules.architecture import Architecture
from skae._training.checkpoints import LATER_PARAMETERS
from skae._training.module import TrainableModule
from skae._training.saving import holds_module
from skae._training.trainer import Trainer, TrainingOptions
from skae._utils.versions import restoring

# Names of attributes in files of earlier versions.
_RENAMED = {"_blueprint": "_architecture", "_own": "_user_modules"}


class NetworkStateMixin(BaseAutoencoder):
    """Methods of a `NetworkAutoencoder` that copy it, and convert it to a state for files."""

    _Architecture: ClassVar[type[Architecture]] = Architecture
    _architecture: Any
    _trainer: Trainer
    _user_modules: tuple[Any, ...]  # the user's own modules in the network

    @abstractmethod
    def _new_module(self, seed: int) -> TrainableModule:
        """Build the network of `_architecture`."""

    @abstractmethod
    def _of_trainer(self) -> dict[str, Any]:
        """Arguments of the trainer beside the network and the options."""

    def _has_foreign_modules(self) -> bool:
        """Whether the fitted network contains code of the user."""
        return holds_module(self._user_modules)

    def __copy__(self) -> Self:
        """A copy with its own network and the same callbacks."""
        new = super().__copy__()
        if "_trainer" in vars(self):
            new._trainer = self._trainer.copy()
        return new

    def __getstate__(self) -> dict[str, Any]:
        """State with the network as arrays and its architecture as plain values."""
        state = super().__getstate__()
        if "_trainer" in state:
            state["net_"] = state.pop("_trainer").state()
            state["_architecture"] = state["_architecture"].as_dict()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        named = {_RENAMED.get(name, name): value for name, value in state.items()}
        super().__setstate__({"n_init": 1, **LATER_PARAMETERS} | named)  # earlier files lack them
        if "net_" in self.__dict__:
            net = self.__dict__.pop("net_")
            with restoring(type(self).__name__):
                self._architecture = self._Architecture(**self._architecture)
            self._trainer = Trainer.of_state(
                net, self._new_module(0), TrainingOptions.of(self), **self._of_trainer()
            )

    def __reduce__(self) -> Any:
        """Called by skops only; pickle calls __reduce_ex__."""
        own = self._names_of_own_code()
        if own or ("_trainer" in vars(self) and self._has_foreign_modules()):
            named = f" ({', '.join(own)})" if own else ""
            raise TypeError(
                f"{type(self).__name__} holds your own network{named}, a module or a function that "
                "makes one, whose code skops cannot check: skops saves weights and plain values "
                "only. Save the model with pickle or joblib, or use built-in networks "
                "(hidden_layer_sizes)."
            )
        return self.__reduce_ex__(2)

    def _names_of_own_code(self) -> list[str]:
        """Names of the parameters that are the user's own networks."""
        return [name for name, value in self.get_params().items() if holds_module(value)]
