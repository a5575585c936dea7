"""Cases: what is called, on which models, with which arguments."""

import copy
import pickle
import random
import re
import warnings
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.utils._param_validation import InvalidParameterError

from .judge import (
    TooLong,
    Unexplained,
    as_array,
    call,
    fingerprint,
    judge_finite,
    judge_kind,
    judge_shape,
    learned_is_finite,
    memory_limit,
    n_rows_of,
    time_limit,
)
from .models import (
    ESTIMATORS,
    Setup,
    draw_argument,
    draw_parameters,
    draw_setup,
    methods,
    parameters,
    plain_setup,
    small_parameters,
    value_of,
)

# Number of setups from which cases take their fitted models; the first one is that of the defaults.
N_SETUPS = 40


def setup_number(name, number):
    return plain_setup(name) if number == 0 else draw_setup(random.Random(f"{name} {number}"), name)


@cache
def fitted(setup):
    """The fitted model of a setup; None if its parameters and rows do not go together."""
    with warnings.catch_warnings(), time_limit(), memory_limit():
        warnings.simplefilter("ignore")
        try:
            return value_of(f"{setup.model}.fit({setup.rows}{setup.extra})")
        except (Exception, TooLong):  # such fits are cases, too, and judged there
            return None


def outputs(model, setup):
    """What a fitted model says of the rows of a setup."""
    for method in ("transform", "score_samples"):
        if hasattr(model, method):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    return fingerprint(as_array(getattr(model, method)(value_of(setup.rows))))
                except (ValueError, TypeError, AttributeError):
                    return None
    return None


@cache
def answer(setup):
    return outputs(fitted(setup), setup)


# ----------------------------------------------------------------------------- one call


class Call(NamedTuple):
    """A call of a method; errors may speak of the `suspects`."""

    method: str
    arguments: dict[str, str]
    suspects: frozenset[str]

    def __str__(self):
        given = ", ".join(f"{name}={code}" for name, code in self.arguments.items())
        return f"model.{self.method}({given})"


def draw_call(r, setup, method, good_rows, n_codes):
    """A call, whose rows are those of the setup or others."""
    n = setup.n if r.random() < 0.4 else r.choice([1, 2, 3, 7, 12])
    d = setup.d if r.random() < 0.95 else 6
    arguments, suspects = {}, set()
    for argument in methods(setup.name)[method].arguments:
        if argument.name == "X" and good_rows and argument.kind == "rows":
            n, code = setup.n, setup.rows
            bad = not code.startswith("rows") or "fit" in method
        elif argument.required or r.random() < 0.35:
            code, bad = draw_argument(r, setup, argument, n, d, n_codes)
        else:
            suspects.add(argument.name)  # an error may say that it is needed
            continue
        arguments[argument.name] = code
        if bad or d != setup.d or n == 1:
            suspects.add(argument.name)
    if "fit" in method:
        suspects |= {"X", *small_parameters(setup.name)}
    elif methods(setup.name)[method].is_foreign:
        suspects.add("X")
    return Call(method, arguments, frozenset(suspects))


def run_call(model, setup, made, suspects, far=False):
    """Call, judge, and return the outcome."""
    try:
        arguments = {name: value_of(code, model=model) for name, code in made.arguments.items()}
    except Exception:  # for example bytes of a table of strings
        return None
    wraps = {"estimator", "autoencoder", "density"} & set(parameters(setup.name))
    wraps = "search" if "scoring" in parameters(setup.name) else bool(wraps)
    if wraps:
        suspects = suspects | {name.rpartition("__")[2] for name in model.get_params()}
    outcome = call(model, made.method, arguments, suspects, wraps)
    if outcome.word == "result":
        far = far or is_far(arguments)
        judge_result(model, setup, made.method, arguments, outcome.result, far)
    return outcome


# Methods whose results may be infinite where densities are zero or below the range of floats.
OF_DENSITIES = ("score", "score_samples", "aic", "bic", "decision_function", "score_codes")


def is_far(arguments):
    """Whether squares of the values overflow."""
    try:
        values = as_array(arguments.get("X"))
        if values.dtype.kind == "O":
            values = np.array([v for v in values.ravel() if isinstance(v, (int, float))])
        values = np.asarray(values, dtype=float)
    except (TypeError, ValueError, RuntimeError):
        return False
    return bool((np.abs(values) > 1e18).any())


def judge_result(model, setup, method, arguments, result, far):
    about = methods(setup.name)[method]
    if method in ("fit", "partial_fit"):
        if result is not model:
            raise Unexplained(f"{method} returned {type(result).__name__}, not the estimator")
        learned_is_finite(model)
        return
    if about.results and about.results[0] in ("estimator", "object"):
        return
    no_density = getattr(model, "covariance_type", None) == "cell" or far
    judge_finite(result, no_density and method in OF_DENSITIES)
    if about.is_foreign:
        return
    if not setup.is_table:
        judge_kind(result, about.annotation, setup.output)
    judge_shape(result, about.results, sizes_of(model, arguments))


def sizes_of(model, arguments):
    """The sizes that the documentation of shapes names."""
    sizes: dict[str, Any] = {"n_samples": 1}
    if "X" in arguments:
        sizes["n_samples"] = n_rows_of(arguments["X"])
    if "values" in arguments:
        sizes["n_values"] = n_rows_of(arguments["values"])
    for name in ("n_samples", "n", "n_draws"):
        if arguments.get(name) is not None:
            sizes[name] = int(arguments[name])
    sizes["n_features"] = getattr(model, "n_features_in_", None)
    sizes["n_components"] = sizes["n_components_"] = getattr(model, "n_components_", None)
    if hasattr(model, "get_feature_names_out"):
        sizes["n_codes"] = len(model.get_feature_names_out())
    return {name: size for name, size in sizes.items() if size is not None}


# ------------------------------------------------------------------------- single calls


class Case(NamedTuple):
    """One call on a new or a fitted model."""

    setup: Setup
    is_fitted: bool
    later: dict[str, str]  # parameters that are changed after the fit
    call: Call

    @property
    def where(self):
        """The estimator and the method."""
        return f"{self.setup.name}.{self.call.method}"

    def __str__(self):
        lines = [f"model = {self.setup.model}"]
        if self.is_fitted:
            lines.append(f"model.fit({self.setup.rows}{self.setup.extra})")
        if self.later:
            lines.append(
                f"model.set_params({', '.join(f'{k}={v}' for k, v in self.later.items())})"
            )
        return "\n".join([*lines, str(self.call)])

    def run(self):
        """Run and judge; return a word for what happened."""
        setup, learns = self.setup, "fit" in self.call.method
        if not self.is_fitted:
            try:
                model = value_of(setup.model)
            except (TypeError, ValueError) as error:
                return type(error).__name__
        else:
            model = copy.deepcopy(fitted(setup)) if learns else fitted(setup)
        model.set_params(**{name: value_of(code) for name, code in self.later.items()})
        changed = {*self.call.suspects, *self.later, *dict(setup.changed)}
        outcome = run_call(model, setup, self.call, changed)
        if outcome is None:
            return "no such value"
        if learns and outcome.error is not None and self.is_fitted:
            model.set_params(**{name: getattr(fitted(setup), name) for name in self.later})
            if outputs(model, setup) != answer(setup):
                raise Unexplained(f"gives other results after {outcome.error!r}")
        return outcome.word


def draw_case(r, name):
    fits = [m for m in methods(name) if "fit" in m]
    others = [m for m in methods(name) if m not in fits]
    later = {}
    setup = setup_number(name, r.randrange(N_SETUPS))
    if fitted(setup) is None:
        setup = plain_setup(name)
    if r.random() < 0.25 or not others:
        method = r.choice(fits)
        is_fitted = r.random() < 0.3
        if not is_fitted:
            setup = draw_setup(r, name, wrong=r.choice([0.0, 0.0, 0.3, 0.9]))
        else:
            later = draw_parameters(r, name, r.choice([0, 1, 2]), wrong=r.choice([0.0, 0.5]))
            if r.random() < 0.3 and "warm_start" in parameters(name):
                later["warm_start"] = "True"
        good_rows = r.random() < 0.5
    else:
        is_fitted, good_rows = r.random() < 0.98, r.random() < 0.3
        model = fitted(setup)
        if r.random() < 0.95:
            others = [m for m in others if hasattr(model, m)] or others
        method = r.choice(others)
    call_ = draw_call(r, setup, method, good_rows, n_codes_of(setup) if is_fitted else 2)
    return Case(setup, is_fitted, later, call_)


@cache
def n_codes_of(setup):
    try:
        return max(1, len(fitted(setup).get_feature_names_out()))
    except (AttributeError, ValueError):
        return 2


# ---------------------------------------------------------------------------- sequences


class Steps(NamedTuple):
    """Calls one after the other on a model, its copies and its clones."""

    setup: Setup
    steps: tuple[Any, ...]

    @property
    def where(self):
        return f"{self.setup.name}: sequences"

    def __str__(self):
        return "\n".join([f"model = {self.setup.model}", *map(str, self.steps)])

    def run(self):
        model = value_of(self.setup.model)
        suspects = {"X", *parameters(self.setup.name)}
        kept = []
        for step in self.steps:
            if isinstance(step, Call):
                learns = "fit" in step.method
                before = outputs(model, self.setup) if learns else None
                far = re.search("1e1[56]0|1e300", str(self)) is not None
                outcome = run_call(model, self.setup, step, suspects | step.suspects, far)
                failed = learns and outcome is not None and outcome.error is not None
                if failed and outputs(model, self.setup) != before:
                    raise Unexplained(f"gives other results after {outcome.error!r} in {step}")
            elif isinstance(step, Later):
                model.set_params(**{name: value_of(code) for name, code in step.items()})
            else:
                before = outputs(model, self.setup)
                other = other_of(model, step)
                if step == "model = clone(model)" and other is not model:
                    before = None
                if outputs(other, self.setup) != before:
                    raise Unexplained(f"gives other results after {step}")
                if other is not model:
                    kept.append(
                        (model, fingerprint(vars(model).keys()), outputs(model, self.setup))
                    )
                model = other
        for earlier, names, before in kept:
            if outputs(earlier, self.setup) != before or fingerprint(vars(earlier).keys()) != names:
                raise Unexplained("a model from which another was copied has changed")
        return "result"


def other_of(model, step):
    """A copy or clone; the model itself if its parameters are such that no fit allows them."""
    try:
        return OTHERS[step](model)
    except (TypeError, ValueError):
        try:
            model._validate_params()
        except InvalidParameterError:
            return model
        raise


class Later(dict):
    """Parameters that are set."""

    def __str__(self):
        return f"model.set_params({', '.join(f'{k}={v}' for k, v in self.items())})"


def through_pickle(model):
    try:
        state = pickle.dumps(model)
    except (AttributeError, TypeError, pickle.PicklingError):  # of a parameter such as a lambda
        return model
    return pickle.loads(state)


OTHERS = {
    "model = clone(model)": lambda model: clone(model),
    "model = copy.copy(model)": copy.copy,
    "model = copy.deepcopy(model)": copy.deepcopy,
    "model = pickle.loads(pickle.dumps(model))": through_pickle,
}


def draw_steps(r, name):
    setup = setup_number(name, r.randrange(N_SETUPS))
    if fitted(setup) is None:
        setup = plain_setup(name)
    fits = [m for m in methods(name) if "fit" in m]
    others = [m for m in methods(name) if hasattr(fitted(setup), m) and m not in fits]
    steps = (
        [Call("fit", {"X": setup.rows}, frozenset())]
        if r.random() < 0.5 and not setup.extra
        else []
    )
    for _ in range(r.randint(2, 4)):
        choice = r.random()
        if choice < 0.45:
            steps.append(draw_call(r, setup, r.choice(fits), r.random() < 0.7, n_codes_of(setup)))
        elif choice < 0.65 and others:
            steps.append(draw_call(r, setup, r.choice(others), r.random() < 0.7, n_codes_of(setup)))
        elif choice < 0.8:
            later = Later(draw_parameters(r, name, 1, wrong=0.3))
            if r.random() < 0.5 and "warm_start" in parameters(name):
                later["warm_start"] = "True"
            steps.append(later)
        else:
            steps.append(r.choice(list(OTHERS)))
    return Steps(setup, tuple(steps))


def draw(r, name=None):
    """A case of an estimator, or of any."""
    name = r.choice(list(ESTIMATORS)) if name is None else name
    return draw_steps(r, name) if r.random() < 0.1 else draw_case(r, name)


def snippet(case):
    """Code that repeats a case."""
    return f"from fuzzing.models import *  # from the folder tests\n{case}"
