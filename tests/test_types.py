"""Annotations of the public classes and functions; mypy checks `tests/typed_code.py` with them."""

import inspect
import pydoc
import re
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import typed_code
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions

import skae
from skae import datasets, metrics, photons, plotting

PUBLIC_MODULES = (
    "skae.datasets",
    "skae.metrics",
    "skae._photons",
    "skae.photons",
    "skae._plotting",
)
PUBLIC = {name: getattr(skae, name) for name in skae.__all__}
PUBLIC |= {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (datasets, metrics, photons, plotting)
    for name, value in vars(module).items()
    if name[0] != "_"
    and isinstance(value, Callable)
    and (getattr(value, "__module__", None) or "").startswith(PUBLIC_MODULES)
}
ESTIMATORS = {
    name: value
    for name, value in PUBLIC.items()
    if isinstance(value, type) and issubclass(value, BaseEstimator)
}


def callables():
    """Public functions, classes (their `__init__`) and methods that skae defines, by name."""
    for name, value in PUBLIC.items():
        function = vars(value).get("__init__") if isinstance(value, type) else value
        if function is not None:
            yield name, function
        for method in dir(value) if isinstance(value, type) else ():
            function = inspect.unwrap(inspect.getattr_static(value, method))
            function = getattr(function, "__func__", function)
            ours = getattr(function, "__module__", None) or ""
            if method[0] != "_" and ours.startswith("skae.") and callable(function):
                yield f"{name}.{method}", function


CALLABLES = dict(callables())


def hints_of(function):
    return get_type_hints(inspect.unwrap(function))


def members(hint):
    """The members of a union, also of nested ones."""
    if get_origin(hint) in (Union, type(int | str)):
        return [member for part in get_args(hint) for member in members(part)]
    return [hint]


def choices(hint):
    literals = [m for m in members(hint) if get_origin(m) is Literal]
    return {value for literal in literals for value in get_args(literal)}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_choices_of_parameters_are_those_that_fit_accepts(name):
    estimator = ESTIMATORS[name]
    hints = hints_of(estimator.__init__)
    for parameter in inspect.signature(estimator).parameters:
        allowed = estimator._parameter_constraints[parameter]
        options = [c.options for c in allowed if isinstance(c, StrOptions)]
        hint = hints[parameter]
        if options and parameter != "scoring":  # of the names of scorers there are hundreds
            assert choices(hint) == set().union(*options), parameter
        if None in allowed and parameter != "scoring":
            assert NoneType in members(hint), parameter
        elif hint is not Any and "random_state" not in allowed and object not in allowed:
            assert NoneType not in members(hint), parameter
        numbers = {c.type.__name__ for c in allowed if isinstance(c, Interval)}
        if "Integral" in numbers:
            assert {int, float} & set(members(hint)), parameter
        if numbers & {"Real", "RealNotInt"}:
            assert float in members(hint), parameter


CHOICES = re.compile(r'^(?:    )?(\w+) : (.*\{("[^}]*)\}.*)$', re.MULTILINE)


@pytest.mark.parametrize("name", CALLABLES)
def test_signatures(name):
    function = CALLABLES[name]
    hints = hints_of(function)  # fails if a name is missing at run time
    signature = inspect.signature(inspect.unwrap(function))
    given = {n for n in signature.parameters if n not in ("self", "cls")}
    assert given <= set(hints), "a parameter has no annotation"
    assert "return" in hints
    assert hints["return"] is not Any
    owner = name.rpartition(".")[0]
    owner = PUBLIC[name] if name in PUBLIC else PUBLIC.get(owner)
    documented = owner if function.__name__ == "__init__" else function
    parameters = inspect.getdoc(documented).partition("Parameters\n")[2].partition("\nReturns\n")[0]
    parameters = parameters.partition("\nAttributes\n")[0].replace("\\\n", "")
    for parameter, _, options in CHOICES.findall(parameters):
        if parameter in hints:
            assert choices(hints[parameter]) >= set(re.findall(r'"(\w[^"]*)"', options)), parameter


@pytest.mark.parametrize("name", ["VAE.fit", "LinearAE.partial_fit", "PPCA.transform"])
def test_help_names_types(name):
    owner, method = name.split(".")
    text = pydoc.plain(pydoc.render_doc(getattr(PUBLIC[owner], method)))
    assert "X: 'ArrayLike'" in text or "X: ArrayLike" in text
    assert "_SupportsArray" not in text


def test_public_module_of_types():
    from skae import typing

    assert typing.__all__ == sorted(typing.__all__)
    assert members(typing.ArrayOrFrame) == [np.typing.NDArray[Any], Any]
    assert Mapping in [get_origin(m) for m in members(typing.Likelihood)]
    assert Sequence[int] in members(typing.LayerSizes)


@pytest.mark.parametrize(
    "code",
    [
        typed_code.networks,
        typed_code.closed_form,
        typed_code.combinations,
        typed_code.own_networks,
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_typed_code_runs(code):
    code(np.random.default_rng(0).standard_normal((60, 4)))
