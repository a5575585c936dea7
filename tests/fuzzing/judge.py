"""What a call may do: the judge of a case."""

import contextlib
import random
import re
import resource
import signal
import time
import traceback
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import torch
from scipy import sparse
from sklearn.exceptions import NotFittedError

# Seconds after which a case counts as a hang, and seconds of computation that count as slow.
LIMIT = 60
SLOW = 10


_SIZE = Path("/proc/self/statm")


class Unexplained(AssertionError):
    """A call did what no estimator may do."""


class TooLong(BaseException):
    """A call takes longer than `LIMIT`. It is no Exception, so that nothing catches it."""


class Outcome(NamedTuple):
    """What a call has returned, and in a word what happened."""

    word: str
    result: Any = None
    error: BaseException | None = None


# --------------------------------------------------------------------------- fingerprints


def fingerprint(value):
    """A plain value that differs if the contents, type or layout of `value` differ."""
    if isinstance(value, np.ma.MaskedArray):
        return ("masked", fingerprint(np.ma.getdata(value)), fingerprint(np.ma.getmaskarray(value)))
    if isinstance(value, np.ndarray):
        contents = repr(value.tolist()) if value.dtype.hasobject else value.tobytes()
        flags = value.flags.writeable, value.strides
        return type(value).__name__, str(value.dtype), value.shape, flags, contents
    if isinstance(value, (pd.DataFrame, pd.Series)):
        columns = [value] if value.ndim == 1 else [value.iloc[:, i] for i in range(value.shape[1])]
        labels = [] if value.ndim == 1 else [repr(label) for label in value.columns]
        parts = [(str(c.dtype), fingerprint(np.asarray(c, dtype=object))) for c in columns]
        return type(value).__name__, labels, repr(value.index), parts
    if isinstance(value, (pl.DataFrame, pl.Series)):
        kinds = value.schema if isinstance(value, pl.DataFrame) else value.dtype
        return type(value).__name__, repr(kinds), repr(list(value))
    if isinstance(value, pa.Table):
        return repr(value.schema), repr(value.to_pydict())
    if sparse.issparse(value):
        parts = {k: fingerprint(v) for k, v in vars(value).items() if isinstance(v, np.ndarray)}
        return type(value).__name__, value.shape, parts, repr(getattr(value, "_dict", None))
    if isinstance(value, torch.nn.Module):
        return repr(value), [fingerprint(p) for p in value.state_dict().values()]
    if isinstance(value, torch.Tensor):
        if value.device.type == "meta" or value.is_nested or value.layout != torch.strided:
            return repr(value.shape) if not value.is_nested else "nested"
        told = value.requires_grad, value.is_leaf and value.grad is None, value.stride()
        return str(value.dtype), tuple(value.shape), told, repr(value.detach().tolist())
    if isinstance(value, (list, tuple, set)):
        return type(value).__name__, [fingerprint(item) for item in value]
    if isinstance(value, dict):
        return {repr(key): fingerprint(item) for key, item in value.items()}
    if isinstance(value, np.random.RandomState):  # its draws are what it is given for
        return "RandomState"
    if hasattr(value, "get_params") and not isinstance(value, type):
        return type(value).__name__, fingerprint(value.get_params(deep=False))
    return re.sub(r" at 0x\w+", "", repr(value))


def global_generators():
    kind, keys, place, *rest = np.random.get_state()  # noqa: NPY002
    state = random.getstate()
    return kind, keys.tobytes(), place, rest, torch.get_rng_state().numpy().tobytes(), state


# ------------------------------------------------------------------------------- a call


@contextlib.contextmanager
def memory_limit(more=2 * 2**30):
    """Let the process take 2 GiB more than it has now; then it gets a MemoryError."""
    if not _SIZE.exists():  # not Linux
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(_SIZE.read_text().split()[0]) * resource.getpagesize()
    most = now + more if before[0] < 0 else min(now + more, before[0])
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def time_limit(seconds=LIMIT):
    def stop(signum, frame):
        raise TooLong("\n".join(traceback.format_stack(frame)[-6:]))

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def call(model, method, arguments, suspects, wraps=False):
    """Call a method and judge all but the contents of its result.

    `suspects` are the names of arguments and parameters of which an error may speak. If the model
    `wraps` an estimator, errors of that may be errors of another package.
    """
    given = {name: fingerprint(value) for name, value in arguments.items()}
    params = fingerprint(model.get_params(deep=False))
    state = dict(vars(model))
    generators = global_generators()
    begun = time.process_time()
    outcome = None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            try:
                function = getattr(model, method)
            except AttributeError as error:
                return Outcome("no such method", error=error)
            with time_limit(), memory_limit():
                outcome = Outcome("result", function(**arguments))
        except TooLong as error:
            raise Unexplained(f"took longer than {LIMIT} s: {error}") from None
        except Exception as error:
            outcome = Outcome(type(error).__name__, error=error)
    if time.process_time() - begun > SLOW:
        raise Unexplained(f"took {time.process_time() - begun:.0f} s")
    if outcome.error is not None:
        judge_error(outcome.error, suspects, wraps)
    for warning in said:
        judge_warning(warning, wraps)
    for name, value in arguments.items():
        may_change = hasattr(value, "__next__") or getattr(model, "copy", None) is False
        if not may_change and fingerprint(value) != given[name]:
            raise Unexplained(f"changed {name}")
    if fingerprint(model.get_params(deep=False)) != params:
        raise Unexplained("changed the parameters of the estimator")
    # Searches of scikit-learn draw from the global generator of NumPy if they get no seed.
    asks = wraps == "search" and getattr(model, "random_state", 0) is None
    if global_generators() != generators and not asks:
        raise Unexplained("advanced a global generator")
    learns = "fit" in method and outcome.error is None
    if not learns and not same_attributes(state, vars(model)):
        changed = {n for n in {*state, *vars(model)} if state.get(n) is not vars(model).get(n)}
        raise Unexplained(f"left another state, attributes {sorted(changed)}, after {outcome.word}")
    return outcome


def same_attributes(before, after):
    return before.keys() == after.keys() and all(after[name] is v for name, v in before.items())


# ---------------------------------------------------------------------- errors and warnings

# Files of scikit-learn whose errors say what is wrong with the input in words of their own.
VALIDATION = re.compile(
    r"sklearn/(utils/(validation|_param_validation|multiclass|_response)"
    r"|model_selection/(_split|_search|_validation)|metrics/_scorer)\.py"
)
# Packages whose estimators are inside of those of skae; their errors are passed on.
FOREIGN = re.compile(
    r"sklearn/(decomposition|mixture|cluster|neighbors|preprocessing|metrics)/"
    r"|sklearn/utils/_(indexing|response|tags)\.py"
)
ADVICE = re.compile(r"reduce |use smaller|give fewer|memory_limit")


def judge_error(error, suspects, wraps):
    if isinstance(error, NotFittedError):
        return
    text = str(error)
    if isinstance(error, MemoryError):
        if not ADVICE.search(text):
            raise Unexplained(f"a MemoryError without advice: {text}") from error
        return
    frames = traceback.extract_tb(error.__traceback__)
    if wraps and any(FOREIGN.search(frame.filename) for frame in frames):
        return
    if wraps == "search" and "/sklearn/" in frames[-1].filename:
        return
    if not isinstance(error, (ValueError, TypeError)):
        raise Unexplained(f"raised {type(error).__name__}: {text}") from error
    if any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in suspects):
        return
    if suspects and VALIDATION.search(frames[-1].filename):
        return
    where = " < ".join(f"{f.filename.rpartition('/')[2]}:{f.lineno}" for f in frames[:-5:-1])
    raise Unexplained(
        f"raised {type(error).__name__} that names none of {sorted(suspects)}: {text} [{where}]"
    ) from error


def judge_warning(warning, wraps):
    kind, text = warning.category, str(warning.message)
    if wraps and FOREIGN.search(warning.filename):
        return
    if kind.__module__ == "sklearn.exceptions":
        return
    unwanted = (RuntimeWarning, DeprecationWarning, PendingDeprecationWarning, FutureWarning)
    if issubclass(kind, unwanted) or not issubclass(kind, UserWarning):
        raise Unexplained(f"leaked {kind.__name__} of {warning.filename}:{warning.lineno}: {text}")
    if warning.filename != __file__ and "/sklearn/" not in warning.filename:
        raise Unexplained(f"leaked {kind.__name__} of {warning.filename}:{warning.lineno}: {text}")


# ------------------------------------------------------------------------------- results


def leaves(value, path="result"):
    if isinstance(value, (list, tuple)):
        names = getattr(value, "_fields", range(len(value)))
        for name, item in zip(names, value, strict=True):
            yield from leaves(item, f"{path}.{name}")
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, f"{path}.{name}")
    else:
        yield path, value


def as_array(value):
    """Contents of a result as an array."""
    if sparse.issparse(value):
        return value.toarray()
    if isinstance(value, pl.DataFrame):
        return np.asarray(value.to_pandas())
    if isinstance(value, pa.Table):
        return np.asarray(value.to_pandas())
    return np.asarray(value)


def judge_finite(result, infinite=False):
    for path, value in leaves(result):
        array = as_array(value)
        if infinite and array.dtype.kind == "f":
            array = np.where(np.isinf(array), 0.0, array)
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            bad = array[~np.isfinite(array)].ravel()
            raise Unexplained(f"{path} has {bad.size} of {array.size} values like {bad[0]}")
        if array.dtype.kind == "O":
            for item in array.ravel():
                if isinstance(item, float) and not np.isfinite(item):
                    raise Unexplained(f"{path} has {item}")


def judge_kind(result, annotation, output):
    """Compare with the annotated type."""
    kinds = {
        "float": float,
        "int": int,
        "Array": np.ndarray,
        "NDArray[Any]": np.ndarray,
        "NDArray[np.float64]": np.ndarray,
        "ArrayOrFrame": {None: np.ndarray, "pandas": pd.DataFrame, "polars": pl.DataFrame}[output],
    }
    wanted = kinds.get(annotation)
    if wanted is None:
        return
    if wanted is pd.DataFrame or wanted is pl.DataFrame:
        wanted = (wanted, np.ndarray) if np.ndim(result) == 3 else wanted  # several imputations
    if not isinstance(result, wanted):
        raise Unexplained(f"returned {type(result).__name__}, annotated as {annotation}")
    array = as_array(result)
    if wanted is np.ndarray and array.dtype.name not in ("float32", "float64", "int64"):
        raise Unexplained(f"returned an array of {array.dtype}")


SHAPE = re.compile(r"\(([^)]*)\)")


def judge_shape(result, words, sizes):
    """Compare with the shapes that the documentation names, as far as their sizes are known."""
    if not words:
        return
    if words[0].startswith("float"):
        if not isinstance(result, (float, np.ndarray)):
            raise Unexplained(f"returned {type(result).__name__}, documented as {words[0]}")
        return
    if words[0] == "int":
        if type(result) is not int:
            raise Unexplained(f"returned {type(result).__name__}, documented as int")
        return
    if len(words) > 1 or "tuple" in words[0]:
        return
    found = SHAPE.findall(words[0].partition("shape")[2])
    shapes = [tuple(filter(None, re.split(r",\s*", shape))) for shape in found]
    if not shapes or not all(name in sizes for shape in shapes for name in shape):
        return
    allowed = [tuple(sizes[name] for name in shape) for shape in shapes]
    shape = np.shape(result) if not sparse.issparse(result) else result.shape
    shape = result.shape if hasattr(result, "shape") else shape
    if tuple(shape) not in allowed:
        raise Unexplained(f"returned shape {tuple(shape)}, documented as {words[0]}: {allowed}")


def n_rows_of(X):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return X.shape[0] if hasattr(X, "shape") else len(X)
    except (TypeError, IndexError):
        return None


def learned_is_finite(model):
    """Public fitted attributes of an estimator are finite."""
    if hasattr(model, "cv_results_"):  # scores are NaN where fits fail (error_score)
        return
    for name, value in vars(model).items():
        if (
            name.endswith("_")
            and not name.startswith("_")
            and isinstance(value, (float, np.ndarray))
        ):
            array = np.asarray(value)
            if name == "noise_variance_" and "_table" in vars(model):
                continue  # NaN for columns without one
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise Unexplained(f"{name} is not finite after {type(model).__name__}.fit: {value}")
