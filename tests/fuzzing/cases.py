"""Cases: what is called, on which model, with which arguments."""

import copy
import random
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .judge import (
    Outcome,
    TooLong,
    Unexplained,
    as_array,
    call,
    fingerprint,
    judge_finite,
    judge_shape,
    learned_is_finite,
    memory_limit,
    n_rows_of,
    time_limit,
)
from .models import (
    ESTIMATORS,
    PREAMBLE,
    draw_argument,
    draw_parameters,
    kinds_for,
    methods,
    parameters,
    small_parameters,
    value_of,
)


class Setup(NamedTuple):
    """A model and the rows that it was fitted to, as expressions."""

    name: str
    changed: tuple[tuple[str, str], ...]  # parameters that are not those of a small model
    kind: str  # of rows
    n: int
    d: int
    rows: str
    extra: str  # other arguments of fit
    output: str | None = None

    @property
    def model(self):
        params = {**small_parameters(self.name), **dict(self.changed)}
        return f"{self.name}({', '.join(f'{k}={v}' for k, v in params.items())})" + (
            f".set_output(transform={self.output!r})" if self.output else ""
        )


def draw_setup(r, name, wrong=0.0, most=3):
    changed = draw_parameters(r, name, most, wrong)
    kind = r.choice(kinds_for(changed))
    n, d = r.choice([(12, 6), (12, 6), (9, 6), (30, 4), (5, 6), (12, 1), (7, 2)])
    rows = f"rows({n},{d},{kind!r},{r.randrange(100)})"
    if "'auto'" in changed.get("likelihood", "") and r.random() < 0.7:
        n, d = 14, 6
        rows, kind = f"table(14,{r.randrange(9)},{r.random() < 0.5})", "table"
    elif r.random() < 0.2:
        rows = f"with_values({rows},np.nan,0.1)"
    elif r.random() < 0.2:
        rows = r.choice(["frame({})", "{}.astype('float32')", "sparse.csr_array({})"]).format(rows)
    extra = ""
    if "conditional" in changed or r.random() < 0.1:
        extra += f",y=np.arange({n})%2"
    if r.random() < 0.1 and "sample_weight" in str(methods(name)["fit"]):
        extra += f",sample_weight=np.arange({n})%3"
    output = None
    if r.random() < 0.15 and hasattr(ESTIMATORS[name], "set_output"):
        output = r.choice(["pandas", "polars"])
    return Setup(name, tuple(sorted(changed.items())), kind, n, d, rows, extra, output)


# Numbers of setups from which cases take their fitted models.
N_SETUPS = 40


@cache
def plain_setup(name):
    return Setup(name, (), "normal", 12, 6, "rows(12,6,'normal',0)", "")


def setup_number(name, number):
    return plain_setup(name) if number == 0 else draw_setup(random.Random(f"{name} {number}"), name)


@cache
def fitted(setup):
    """The fitted model of a setup; None if its parameters and rows do not go together."""
    import warnings

    with warnings.catch_warnings(), memory_limit(), time_limit():
        warnings.simplefilter("ignore")
        try:
            return value_of(f"{setup.model}.fit({setup.rows}{setup.extra})")
        except (Exception, TooLong):
            return None


@cache
def answer(setup):
    """What a fitted model says of its training rows, to which it is held after a failed fit."""
    return outputs(fitted(setup), setup)


def outputs(model, setup):
    import warnings

    for method in ("transform", "score_samples"):
        if hasattr(model, method):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    return fingerprint(as_array(getattr(model, method)(value_of(setup.rows))))
                except (ValueError, TypeError):
                    return None
    return None


class Case(NamedTuple):
    """One call."""

    setup: Setup
    is_fitted: bool
    method: str
    arguments: dict[str, str]
    suspects: frozenset[str]
    changed_later: dict[str, str] = {}

    @property
    def where(self):
        """The estimator and the method."""
        return f"{self.setup.name}.{self.method}"

    def __str__(self):
        given = ", ".join(f"{name}={code}" for name, code in self.arguments.items())
        lines = [f"model = {self.setup.model}"]
        if self.is_fitted:
            lines.append(f"model.fit({self.setup.rows}{self.setup.extra})")
        if self.changed_later:
            later = ", ".join(f"{k}={v}" for k, v in self.changed_later.items())
            lines.append(f"model.set_params({later})")
        lines.append(f"model.{self.method}({given})")
        return "\n".join(lines)


SNIPPET = f"""from skae import *
from fuzzing.values import *{PREAMBLE}"""


def draw(r, name=None):
    return draw_case(r, name)


def draw_case(r, name=None):
    name = r.choice(list(ESTIMATORS)) if name is None else name
    fits = [m for m in methods(name) if "fit" in m]
    others = [m for m in methods(name) if m not in fits]
    if r.random() < 0.25 or not others:
        method = r.choice(fits)
        setup = draw_setup(r, name, wrong=r.choice([0.0, 0.0, 0.3, 0.9]))
        is_fitted = False
        later = {}
        if r.random() < 0.3:
            candidate = setup_number(name, r.randrange(N_SETUPS))
            if fitted(candidate) is not None:
                setup, is_fitted = candidate, True
                later = draw_parameters(r, name, r.choice([0, 1, 2]), wrong=r.choice([0.0, 0.5]))
                if r.random() < 0.3 and "warm_start" in parameters(name):
                    later["warm_start"] = "True"
        suspects = {key for key, _ in setup.changed} | set(later)
        good_rows = r.random() < 0.5
    else:
        method = r.choice(others)
        setup = setup_number(name, r.randrange(N_SETUPS))
        if fitted(setup) is None:
            setup = plain_setup(name)
        is_fitted, later = r.random() < 0.98, {}
        suspects = {key for key, _ in setup.changed}
        good_rows = r.random() < 0.3
    n = r.choice([1, 2, 3, 7, 12, setup.n])
    d = setup.d if r.random() < 0.95 else 6
    n_codes = 2
    if is_fitted:
        model = fitted(setup)
        try:
            n_codes = len(model.get_feature_names_out())
        except (AttributeError, ValueError):
            n_codes = 2
    arguments = {}
    for argument in methods(name)[method][0]:
        if argument.name == "X" and (good_rows and argument.kind == "rows"):
            n, code, bad = setup.n, setup.rows, setup.kind == "table"
            suspects |= {"X"} if "with_values" in code or "fit" in method else set()
        elif argument.required or r.random() < 0.35:
            code, bad = draw_argument(r, argument, n, d, max(n_codes, 1), setup.kind)
        else:
            suspects.add(argument.name)  # an error may say that it is needed
            continue
        arguments[argument.name] = code
        if bad or argument.kind == "codes" or d != setup.d or n == 1:
            suspects.add(argument.name)
    if "fit" in method:
        suspects |= {"X", *small_parameters(name)}
    elif "sklearn" in getattr(ESTIMATORS[name], method).__module__:
        suspects.add("X")
    return Case(setup, is_fitted, method, arguments, frozenset(suspects), later)


def run(case):
    """Run and judge a case; return a word for what happened."""
    setup = case.setup
    learns = "fit" in case.method
    if case.is_fitted:
        model = copy.deepcopy(fitted(setup)) if learns else fitted(setup)
    else:
        try:
            model = value_of(setup.model)
        except Exception as error:  # noqa: BLE001
            raise Unexplained(f"the constructor raised {error!r}") from error
    if case.changed_later:
        model.set_params(**{name: value_of(code) for name, code in case.changed_later.items()})
    try:
        arguments = {name: value_of(code) for name, code in case.arguments.items()}
    except Exception:  # for example bytes of a table of strings
        return "no such value"
    suspects = {*case.suspects}
    wrapped = {"estimator", "autoencoder", "density"} & set(parameters(setup.name))
    if wrapped:
        suspects |= {name.rpartition("__")[2] for name in model.get_params()}
    outcome = call(model, case.method, arguments, suspects, bool(wrapped))
    if learns and outcome.error is not None and case.is_fitted:
        if case.changed_later:
            model.set_params(
                **{key: getattr(fitted(setup), key) for key in case.changed_later}
            )
        if outputs(model, setup) != answer(setup):
            raise Unexplained(f"gives other results after {outcome.error!r}")
    if outcome.word == "result":
        judge_result(case, model, arguments, outcome)
    return outcome.word


OF_DENSITIES = ("score", "score_samples", "aic", "bic", "exact_log_likelihood")


def is_far(arguments):
    """Whether squares of the values overflow."""
    try:
        values = np.asarray(as_array(arguments.get("X")), dtype=float)
    except (TypeError, ValueError):
        return False
    return bool((np.abs(values) > 1e18).any())


def judge_result(case, model, arguments, outcome: Outcome):
    result = outcome.result
    words = methods(case.setup.name)[case.method][1]
    if case.method in ("fit", "partial_fit"):
        if result is not model:
            raise Unexplained(f"{case.method} returned {type(result).__name__}, not the estimator")
        learned_is_finite(model)
        return
    if "estimator" in words or "object" in words:
        return
    keeps_nan = False
    if not keeps_nan:
        # Only where the documentation says that the density is zero.
        zero_density = getattr(model, "covariance_type", None) == "cell" or is_far(arguments)
        judge_finite(result, zero_density and case.method in OF_DENSITIES)
    sizes: dict[str, Any] = {}
    X = arguments.get("X")
    if X is not None:
        sizes["n_samples"] = n_rows_of(X)
    if "n_samples" in arguments:
        sizes["n_samples"] = int(arguments["n_samples"])
    elif X is None:
        sizes["n_samples"] = 1
    if "n" in arguments:
        sizes["n"] = int(arguments["n"])
    if "values" in arguments:
        sizes["n_values"] = n_rows_of(arguments["values"])
    if arguments.get("n_draws") is not None and np.ndim(arguments["n_draws"]) == 0:
        sizes["n_draws"] = int(arguments["n_draws"])
    if hasattr(model, "n_features_in_"):
        sizes["n_features"] = model.n_features_in_
    if hasattr(model, "n_components_"):
        sizes["n_components"] = sizes["n_components_"] = model.n_components_
    if hasattr(model, "get_feature_names_out"):
        sizes["n_codes"] = len(model.get_feature_names_out())
    sizes = {name: size for name, size in sizes.items() if size is not None}
    if "sklearn" not in getattr(ESTIMATORS[case.setup.name], case.method).__module__:
        judge_shape(result, words, sizes)
