"""Estimators, their parameters, methods and arguments, as they are discovered."""

import inspect
import re
from functools import cache
from typing import NamedTuple

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, Options

import skae

from .values import ANYTHING, KINDS, draw_rows, draw_targets, draw_weights, evaluated

ESTIMATORS = {
    name: value
    for name, value in ((name, getattr(skae, name)) for name in skae.__all__)
    if inspect.isclass(value) and issubclass(value, BaseEstimator) and hasattr(value, "fit")
}

# Small values of parameters, so that a fit takes milliseconds.
SMALL = {
    "batch_size": "8",
    "cv": "2",
    "decoder_layer_sizes": "3",
    "density": "'autoregressive'",
    "dilations": "(1,)",
    "discriminator_layer_sizes": "3",
    "estimator": "PPCA(1)",
    "hidden_layer_sizes": "4",
    "max_iter": "2",
    "n_channels": "4",
    "n_codes": "3",
    "n_components": "2",
    "n_iter": "2",
    "n_members": "2",
    "n_mixture": "2",
    "n_prior_components": "3",
    "param_distributions": "{'n_components': [1, 2]}",
    "param_grid": "{'n_components': [1, 2]}",
    "pretraining_max_iter": "1",
    "prior_channels": "4",
    "prior_max_iter": "2",
    "random_state": "0",
}
# Values that constraints do not name, or name too widely.
SPECIAL = {
    "autoencoder": [
        "None",
        "PPCA(2)",
        "LinearAE(2)",
        "PCA(2)",
        "Autoencoder(2,hidden_layer_sizes=4,max_iter=1,random_state=0)",
        "VQVAE(2,n_codes=3,hidden_layer_sizes=4,max_iter=1,prior=None,random_state=0)",
        "FrozenEstimator(PCA(2).fit(rows(12,6)))",
        "make_pipeline(StandardScaler(),PCA(2))",
        "KernelPCA(2)",
        "PPCA",
        "StandardScaler()",
        "KMeans(2,n_init=1,random_state=0)",
    ],
    "callbacks": ["None", "[]", "()", "[None]", "['a']", "[object()]", "(1,)"],
    "compile": ["False"],
    "cv": ["2", "3", "None", "'auto'", "KFold(2)", "1", "0", "99", "'a'", "[([0,1,2,3],[4,5])]"],
    "decoder": [
        "None",
        "nn.Linear(2,6)",
        "nn.Linear(6,2)",
        "nn.Identity()",
        "lambda n_in,n_out:nn.Linear(n_in,n_out)",
        "lambda:0",
        "nn.Linear",
    ],
    "density": [
        "'autoregressive'",
        "'flow'",
        "GaussianMixture(1,random_state=0)",
        "KernelDensity()",
        "PPCA(1)",
        "KMeans(2,n_init=1,random_state=0)",
        "GaussianMixture",
        "make_pipeline(StandardScaler(),GaussianMixture(1))",
    ],
    "device": ["'cpu'", "'auto'", "'meta'", "'cuda'", "'nonsense'", "''", "'cpu:0'"],
    "domain": ["None", "[[-9,9]]*6", "[[0,1]]*6", "[[1,0]]*6", "[[0,0]]*6", "[0,1]", "[[0,9]]"],
    "encoder": [
        "None",
        "nn.Linear(6,2)",
        "nn.Linear(2,6)",
        "nn.Sequential(nn.Linear(6,3),nn.ReLU(),nn.Linear(3,2))",
        "nn.Identity()",
        "lambda n_in,n_out:nn.Linear(n_in,n_out)",
        "lambda:0",
        "nn.Linear",
    ],
    "estimator": [
        "PPCA(1)",
        "LinearAE(2)",
        "VAE(2,hidden_layer_sizes=4,max_iter=1)",
        "Autoencoder(2,hidden_layer_sizes=4,max_iter=1)",
        "CountMixtureAE(2,max_iter=2)",
        "PCA(1)",
        "GaussianMixture(1,random_state=0)",
        "make_pipeline(StandardScaler(),PPCA(1))",
        "KMeans(2,n_init=1,random_state=0)",
        "VAE(2,hidden_layer_sizes=4,max_iter=1,likelihood='auto')",
        "LatentDensityEstimator(PPCA(1),density=GaussianMixture(1,random_state=0))",
        "StandardScaler()",
        "PPCA(99)",
        "PPCA",
    ],
    "image_shape": [
        "None",
        "(1,2,3)",
        "(2,3)",
        "(6,)",
        "[1,3,2]",
        "(1,6,1)",
        "(0,6)",
        "('a',)",
        "()",
    ],
    "levels": [
        "(3,2)",
        "[2,2]",
        "(8,8,8)",
        "(1,)",
        "(0,)",
        "()",
        "(2.5,)",
        "np.array([3,2])",
        "(-1,2)",
    ],
    "likelihood": ["{0:'bernoulli'}", "{}", "{'c0':'poisson'}", "{99:'gaussian'}", "{0:3}"],
    "orderings": [
        "1",
        "2",
        "[[0,1]]",
        "[[1,0],[0,1]]",
        "[[0,0]]",
        "[0,1]",
        "[[0,1,2]]",
        "[['a','b']]",
    ],
    "param_distributions": [
        "{'n_components': [1, 2]}",
        "{}",
        "[]",
        "{'a': [1]}",
        "{'n_components': []}",
    ],
    "param_grid": ["{'n_components': [1, 2]}", "{}", "[]", "{'a': [1]}", "{'n_components': []}"],
    "perceptual": [
        "None",
        "(nn.Linear(6,2),1.0)",
        "(nn.Linear(5,2),1.0)",
        "(nn.Linear(6,2),-1.0)",
        "(nn.Linear(6,2),'a')",
        "(1,2)",
        "(nn.Identity(),)",
        "()",
    ],
    "prior": [
        "GaussianMixture(2)",
        "lambda n,rng:rng.normal(size=(n,2))",
        "lambda n,rng:None",
        "nn.Identity()",
    ],
    "prior_means": [
        "(-3.0,3.0)",
        "[[0,1],[1,0]]",
        "[]",
        "[0]",
        "['a']",
        "[np.nan]",
        "[[1]]",
        "1.0",
    ],
    "support": [
        "'auto'",
        "None",
        "(0,1)",
        "(-9,9)",
        "[1,0]",
        "(0,None)",
        "(0,)",
        "('a','b')",
        "(0,np.inf)",
    ],
    "verbose": ["0", "False"],
}
# Numbers of repetitions: large values mean long runs.
LOOPS = re.compile(
    r"max_iter|n_init|orderings|n_members|n_iter|n_averages|cv|n_iter_no_change|n_jobs"
)
SLOW_DATA = {"compile", "n_jobs", "pre_dispatch"}

PREAMBLE = """
from torch import nn
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, KernelPCA
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
"""


@cache
def names():
    """Names that expressions of this module use."""
    found = dict(ESTIMATORS)
    exec(PREAMBLE, found)
    return found


def value_of(code, **more):
    return evaluated(code, **names(), **more)


@cache
def parameters(name):
    return inspect.signature(ESTIMATORS[name]).parameters


@cache
def small_parameters(name):
    return {key: code for key, code in SMALL.items() if key in parameters(name)}


# --------------------------------------------------------------------------- parameters


@cache
def valid_values(name, parameter):
    """Expressions of values that the constraints of a parameter allow."""
    found = list(SPECIAL.get(parameter, []))
    if parameter in ("compile", "verbose", "device", "cv"):
        return found
    for allowed in ESTIMATORS[name]._parameter_constraints.get(parameter, []):
        if isinstance(allowed, Interval):
            found += of_interval(allowed, bool(LOOPS.search(parameter)))
        elif isinstance(allowed, Options):
            found += map(repr, sorted(allowed.options, key=str))
        elif allowed == "boolean":
            found += ["True", "False", "np.bool_(True)"]
        elif allowed == "random_state":
            found += ["0", "np.random.RandomState(0)", "2**32-1", "None"]
        elif allowed == "array-like":
            found += ["(4,)", "[3,2]", "np.array([4])", "()"]
        elif allowed is None:
            found.append("None")
    return list(dict.fromkeys(found))


def of_interval(interval, short):
    whole = "Integral" in str(interval.type.__name__)
    low, high = interval.left, interval.right
    if whole:
        numbers = [low, low + 1, low + 2, low + 3, f"np.int64({low + 1})", f"np.uint8({low + 2})"]
        return [str(n) for n in numbers] + ([] if short else ["17", "10**30", "2**31"])
    ends = [low if interval.closed in ("left", "both") else f"{low}+1e-12"]
    if high is None or high == float("inf"):
        ends += ["1e-3", "0.5", "1.0", "2", "1e3", "1e30", "1e300", "5e-324"]
    else:
        ends += [high if interval.closed in ("right", "both") else f"{high}-1e-12", "0.5"]
    return [str(end) for end in ends] + ["np.float32(0.5)", "np.float64(0.25)"]


def draw_parameters(r, name, most=3, wrong=0.0):
    """Changed parameters as expressions: some of their valid values, or of any."""
    changed = {}
    pool = [p for p in parameters(name) if p not in SLOW_DATA]
    for parameter in r.sample(pool, min(len(pool), r.randint(0, most))):
        values = valid_values(name, parameter)
        if r.random() < wrong or not values:
            values = ANYTHING
            if LOOPS.search(parameter):
                values = [v for v in values if not re.search(r"10\*\*30|2\*\*|1e10", v)]
        changed[parameter] = r.choice(values)
    return changed


# ------------------------------------------------------------------- methods and arguments


class Argument(NamedTuple):
    """An argument as the documentation describes it."""

    name: str
    kind: str
    required: bool
    options: tuple[str, ...] = ()


class Method(NamedTuple):
    """A public method: its arguments, and its results in the words of the documentation."""

    arguments: list[Argument]
    results: tuple[str, ...]
    annotation: str
    is_foreign: bool  # inherited from scikit-learn


INHERITED = re.compile(r"_|set_\w+$|get_params$|get_metadata_routing$")


@cache
def methods(name):
    """Public methods with their arguments."""
    Estimator = ESTIMATORS[name]
    found = {}
    for method in dir(Estimator):
        if INHERITED.match(method):
            continue
        function = getattr(Estimator, method)
        if not inspect.isroutine(function):  # a property
            continue
        arguments = [
            described(p, docs_of(function).get(p.name, ""))
            for p in list(inspect.signature(function).parameters.values())[1:]
            if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        ]
        annotation = str(inspect.signature(function).return_annotation)
        is_foreign = function.__module__.startswith("sklearn")
        found[method] = Method(arguments, results_of(function), annotation, is_foreign)
    return found


def sections_of(function):
    doc = inspect.cleandoc(function.__doc__ or "")
    parts = re.split(r"^(\w[\w ]*)\n-+\n", doc, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def docs_of(function):
    """Types of parameters, in the words of the documentation."""
    text = sections_of(function).get("Parameters", "").replace("\\\n", "")
    return dict(re.findall(r"^(\w+) : (.*)$", text, flags=re.MULTILINE))


def results_of(function):
    """Types of results, in the words of the documentation."""
    text = re.sub(r"\\\n\s*", "", sections_of(function).get("Returns", ""))
    return tuple(re.findall(r"^\w+ : (.*)$", text, flags=re.MULTILINE))


def described(parameter, text):
    required = parameter.default is parameter.empty
    options = re.match(r"\{([^{}]*)\}", text)
    if options and re.fullmatch(r"(\".*?\"|'.*?'|True|False|None|\d+|, )*", options[1]):
        return Argument(parameter.name, "option", required, tuple(options[1].split(", ")))
    for pattern, kind in (
        (r"^(sample_weight|noise_covariance)$", "weight"),
        (r"^y$", "target"),
        (r"^random_state$", "seed"),
        (r"^(given|values)$", "short"),
        (r"^component$", "component"),
        (r"^shape$", "shape"),
        (r"^input_features$", "names"),
    ):
        if re.search(pattern, parameter.name):
            return Argument(parameter.name, kind, required)
    codes = re.search(r"\(n_samples, (n_codes|n_components|n_varying_codes)\)", text)
    if codes:
        return Argument(parameter.name, "codes", required, (codes[1],))
    for pattern, kind in (
        (r"shape \(n_features,\)", "row"),
        (r"n_samples, n_features\)|array-like", "rows"),
        (r"\bint\b", "count"),
        (r"\bfloat\b", "number"),
        (r"\bbool\b", "flag"),
    ):
        if re.search(pattern, text):
            return Argument(parameter.name, kind, required)
    return Argument(parameter.name, "rows" if parameter.name == "X" else "any", required)


@cache
def maker_of(name, width):
    """The method that computes such codes from rows."""
    for method, (arguments, results, *_) in methods(name).items():
        takes_rows = arguments and arguments[0].kind == "rows"
        if takes_rows and results and f"(n_samples, {width})" in results[0] and "fit" not in method:
            return method
    return "transform"


def rows_like(r, setup, n, kind):
    if setup.is_table:
        return f"table({n},{r.randrange(9)})"
    return f"rows({n},{setup.d},{kind!r},{r.randrange(99)})"


COUNTS = [
    "1",
    "2",
    "3",
    "4",
    "2",
    "3",
    "np.int64(2)",
    "0",
    "-1",
    "10**30",
    "2**62",
    "True",
    "2.0",
    "1.5",
    "'2'",
    "None",
]


def draw_argument(r, setup, argument, n, d, n_codes):
    """An expression of an argument, and whether it may be wrong."""
    kind = setup.kind if setup.kind in KINDS else "normal"
    match argument.kind:
        case "rows":
            if setup.is_table and r.random() < 0.6:
                return f"table({n},{r.randrange(9)})", True
            code, bad = draw_rows(r, n, d, kind)
            return code, bad or setup.is_table
        case "codes":
            if r.random() < 0.4:
                maker = maker_of(setup.name, argument.options[0])
                return f"model.{maker}({rows_like(r, setup, n, kind)})", True
            return draw_rows(r, n, n_codes, r.choice(["normal", "few values", "counts"]))[0], True
        case "row":
            return draw_rows(r, 1, d, kind)
        case "short":
            vector = f"rows(1,{r.randint(1, n_codes + 1)},'normal',{r.randrange(9)})[0]"
            return r.choice([vector, vector, f"{vector}.tolist()", r.choice(ANYTHING)]), True
        case "weight":
            return draw_weights(r, n)
        case "target":
            return draw_targets(r, n)
        case "seed":
            return r.choice(
                ["0", "1", "None", "np.random.RandomState(0)", r.choice(ANYTHING)]
            ), True
        case "component":
            return r.choice([*COUNTS, "0", "0", "1"]), True
        case "count":
            return r.choice([*COUNTS, "2", "3", r.choice(ANYTHING)]), True
        case "number":
            return r.choice(["1.0", "0.5", "0", "-1.0", "1e300", r.choice(ANYTHING)]), True
        case "flag" if argument.name == "check_input":  # with False, the user has checked
            return r.choice(["True", "1", "'a'", "[[1,2],[3,4]]"]), True
        case "flag":
            return r.choice(["True", "False", "np.bool_(False)", r.choice(ANYTHING)]), True
        case "option":
            return r.choice([*argument.options, r.choice(ANYTHING)]), True
        case "names":
            return r.choice(
                ["None", f"['a']*{d}", f"[f'c{{i}}' for i in range({d})]", "['a']", "5"]
            ), True
        case "shape":
            return r.choice(
                ["None", "(2,3)", "(3,)*6", "(1,)", "()", "(0,3)", "'a'", "[2,3]"]
            ), True
    return r.choice(ANYTHING), True


class Setup(NamedTuple):
    """A model and the rows that it was fitted to, as expressions."""

    name: str
    changed: tuple[tuple[str, str], ...]  # parameters that are not those of a small model
    kind: str  # of rows
    n: int
    d: int
    rows: str
    extra: str = ""  # other arguments of fit
    output: str | None = None

    @property
    def model(self):
        params = {**small_parameters(self.name), **dict(self.changed)}
        return f"{self.name}({', '.join(f'{k}={v}' for k, v in params.items())})" + (
            f".set_output(transform={self.output!r})" if self.output else ""
        )

    @property
    def is_table(self):
        return self.kind == "table"


@cache
def plain_setup(name):
    return Setup(name, (), "normal", 12, 6, "rows(12,6,'normal',0)")


def draw_setup(r, name, wrong=0.0, most=3):
    changed = draw_parameters(r, name, most, wrong)
    kind = r.choice(kinds_for(changed))
    n, d = r.choice([(12, 6), (12, 6), (9, 6), (30, 4), (5, 6), (12, 1), (7, 2)])
    rows = f"rows({n},{d},{kind!r},{r.randrange(100)})"
    if "'auto'" in str(changed) and "likelihood" in str(changed) and r.random() < 0.7:
        n, d = 14, 6
        rows, kind = f"table(14,{r.randrange(9)},{r.random() < 0.5})", "table"
    elif r.random() < 0.2:
        rows = f"with_values({rows},np.nan,0.1)"
    elif r.random() < 0.2:
        rows = r.choice(["frame({})", "{}.astype('float32')", "sparse.csr_array({})"]).format(rows)
    extra = ""
    if "True" in changed.get("conditional", "") or r.random() < 0.1:
        extra += f",y=np.arange({n})%2"
    if r.random() < 0.1 and any(a.kind == "weight" for a in methods(name)["fit"].arguments):
        extra += f",sample_weight=np.arange({n})%3"
    output = None
    if r.random() < 0.15 and hasattr(ESTIMATORS[name], "set_output"):
        output = r.choice(["pandas", "polars"])
    return Setup(name, tuple(sorted(changed.items())), kind, n, d, rows, extra, output)


def kinds_for(changed):
    """Kinds of rows that suit changed parameters."""
    likelihood = changed.get("likelihood", "")
    for word, kinds in (
        ("continuous_bernoulli", ("unit",)),
        ("bernoulli", ("binary",)),
        ("poisson", ("counts",)),
        ("binomial", ("counts",)),
        ("categorical", ("few values",)),
    ):
        if word in likelihood:
            return kinds
    return ("normal", *KINDS)
