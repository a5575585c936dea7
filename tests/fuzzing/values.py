"""Values that a case gives to estimators, drawn as Python expressions.

A case consists of expressions, so that it can be printed as code that repeats it, and so that
values can be computed a second time. Functions that draw get a `random.Random`.
"""

import datetime
import decimal
import fractions
import os
import tempfile
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import torch
from numpy.lib.recfunctions import unstructured_to_structured
from scipy import sparse

KINDS = ("normal", "counts", "binary", "unit", "simplex", "few values", "rank one", "constant")


def rows(n, d, kind="normal", seed=0):
    """Rows of one of `KINDS`, with which each likelihood has something to learn."""
    rng = np.random.default_rng([seed, n, d])
    factors = rng.normal(size=(n, 2)) @ rng.normal(size=(2, d))
    X = 1.0 + factors + 0.3 * rng.normal(size=(n, d))
    match kind:
        case "counts":
            return rng.poisson(np.exp(np.clip(X, None, 3.0))).astype(float)
        case "binary":
            return (X > 1.0).astype(float)
        case "unit":
            return 1.0 / (1.0 + np.exp(-X))
        case "simplex":
            return np.exp(X) / np.exp(X).sum(axis=1, keepdims=True)
        case "few values":
            return np.round(X)
        case "rank one":
            return np.outer(np.arange(float(n)), np.ones(d))
        case "constant":
            return np.full((n, d), 3.0)
    return X


def with_values(X, value, share=0.2, seed=0):
    """A copy of X in which a share of the values is `value`, but at least one."""
    X = np.array(X, dtype=float)
    where = np.random.default_rng(seed).random(X.shape) < share
    if X.size:
        where.flat[seed % X.size] = True
    X[where] = value
    return X


def table(n, seed=0, bare=False):
    """A frame of numbers, booleans, categories and strings; some values are missing."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "real": rng.normal(size=n),
            "count": rng.poisson(3, size=n),
            "flag": rng.random(n) < 0.5,
            "level": pd.Categorical(rng.choice(["low", "mid", "high"], size=n)),
            "name": rng.choice(["a", "b"], size=n),
            "share": rng.random(n),
        }
    )
    if not bare:
        frame.loc[frame.index[::7], "real"] = np.nan
        frame.loc[frame.index[::5], "level"] = None
    return frame


def frame(X, names=None, **changes):
    names = [f"c{i}" for i in range(np.shape(X)[1])] if names is None else names
    return pd.DataFrame(np.asarray(X), columns=names).assign(**changes)


def in_file(X):
    """X as a memory map of a file that is deleted at once."""
    handle, path = tempfile.mkstemp()
    os.close(handle)
    mapped = np.memmap(path, dtype=X.dtype, mode="w+", shape=X.shape)
    mapped[:] = X
    mapped = np.memmap(path, dtype=X.dtype, mode="r", shape=X.shape)
    os.remove(path)
    return mapped


def frozen(X):
    X = np.array(X)
    X.flags.writeable = False
    return X


def masked(X, share=0.2, seed=0):
    return np.ma.array(X, mask=np.random.default_rng(seed).random(np.shape(X)) < share)


def holes_as(X, missing, share=0.2):
    """Objects, of which a share is `missing`."""
    X = np.asarray(X).astype(object)
    X[np.random.default_rng(0).random(X.shape) < share] = missing
    return X


def wide_indices(X):
    X = sparse.csr_matrix(X)
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


def with_duplicates(X):
    X = sparse.coo_array(X)
    twice = [np.tile(index, 2) for index in X.coords]
    return sparse.coo_array((np.tile(X.data / 2, 2), twice), shape=X.shape).tocsr()


def with_zeros(X):
    X = sparse.csr_array(X)
    X.data[::2] = 0.0
    return X


def as_lists_of_ints(X):
    return [[int(value) for value in row] for row in X]


def as_generator(X):
    return (row.tolist() for row in X)


class Foreign:
    """An object that is an array for NumPy only."""

    def __init__(self, X):
        self.X = np.array(X)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.X, dtype=dtype)


# ------------------------------------------------------------------------------ expressions

NAMES = {
    "Decimal": decimal.Decimal,
    "Foreign": Foreign,
    "Fraction": fractions.Fraction,
    "as_generator": as_generator,
    "as_lists_of_ints": as_lists_of_ints,
    "datetime": datetime,
    "frame": frame,
    "frozen": frozen,
    "holes_as": holes_as,
    "in_file": in_file,
    "masked": masked,
    "np": np,
    "pa": pa,
    "pd": pd,
    "pl": pl,
    "rows": rows,
    "sparse": sparse,
    "structured": unstructured_to_structured,
    "table": table,
    "torch": torch,
    "wide_indices": wide_indices,
    "with_duplicates": with_duplicates,
    "with_values": with_values,
    "with_zeros": with_zeros,
}


def evaluated(code, **names):
    """The value of an expression. Warnings of casts are no concern of the tests."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return eval(code, {**NAMES, **names})


def expressions(text):
    """Expressions without spaces, separated by spaces."""
    return text.split()


# Values among otherwise good ones.
ODD_VALUES = expressions("""
np.nan np.inf -np.inf 1e300 -1e300 5e-324 1e30 -1.0 1e-30
""")

# The same rows in another container. Each is given with how often it is drawn.
CONTAINERS = expressions("""
{} np.asfortranarray({}) {}[::-1] {}[:,::-1] np.repeat({},2,axis=0)[::2] frozen({}) in_file({})
{}.astype('float16') {}.astype('float32') {}.astype('longdouble') {}.astype('int8')
{}.astype('int16') {}.astype('int32') {}.astype('int64') {}.astype('uint8') {}.astype('uint16')
{}.astype('uint32') {}.astype('uint64') {}.astype(bool) {}.astype('>f8') {}.astype(object)
holes_as({},None) holes_as({},pd.NA) holes_as({},np.nan) np.ma.array({}) masked({}) np.matrix({})
{}.tolist() list({}) tuple(map(tuple,{})) as_lists_of_ints({}) Foreign({}) pd.DataFrame({})
frame({}) frame({}).astype('Float64') frame({}).astype('float32') frame({}).convert_dtypes()
frame({}).astype('Int64',errors='ignore') frame({}).astype('category')
frame({}).astype(pd.SparseDtype(float,0.0)) frame({}).astype(object) frame({})[::-1]
frame({},range({}.shape[1])) frame({},pd.MultiIndex.from_product([['m'],range({}.shape[1])]))
frame({}).convert_dtypes(dtype_backend='pyarrow') frame({}).set_index('c0',drop=False)
pl.DataFrame({}) pl.DataFrame(frame({}))
pl.from_pandas(frame({})).with_columns(pl.all().cast(pl.Int32)) pa.Table.from_pandas(frame({}))
pa.RecordBatch.from_pandas(frame({})) sparse.csr_array({}) sparse.csc_array({})
sparse.coo_array({}) sparse.bsr_array({}) sparse.dia_array({}) sparse.dok_array({})
sparse.lil_array({}) sparse.csr_matrix({}) wide_indices({}) with_duplicates({}) with_zeros({})
sparse.csr_array({}).astype('float32') sparse.csr_array({}).astype(int)
sparse.csr_array({}).astype(bool) torch.tensor({}) torch.tensor({}).float()
torch.tensor({}).half() torch.tensor({}).bfloat16() torch.tensor({}).int() torch.tensor({})>0
torch.tensor({},requires_grad=True) torch.tensor({}).T.contiguous().T torch.tensor({}).to_sparse()
""")

# What is no rows, or other rows.
SPOILED = expressions("""
{}[0] {}[:0] {}[:1] {}[:,:0] {}[:,:1] {}[:2] {}[:,:,None] {}[None] {}[:,:-1] {}.ravel() {}[0,0]
np.hstack([{},{}]) {}.T {}+1j {}.astype(complex) {}.astype(str) {}.astype('S5')
np.full({}.shape,'one') np.full({}.shape,'one',dtype=object) {}.astype('int64').astype('M8[D]')
{}.astype('int64').astype('m8[s]') structured({}) np.full({}.shape,None) np.empty((0,0))
np.array(3.0) [[1.0,2.0],[3.0]] [] [[]] [[[]]] 3.0 None 'rows' b'rows' {{}} {{'a':[1.0,2.0]}}
set() object object() dict(enumerate({}.T)) as_generator({}) iter({}) range(6) [None]*5
[['a','b']]*5 [[1,'a']]*5 [[10**400]*6]*5 [[True]*6]*5 [[Decimal(1)]*6]*5 [[Fraction(1,3)]*6]*5
[[datetime.date(2000,1,1)]*6]*5 frame({},['a']*{}.shape[1]) frame({},list('fedcba')[:{}.shape[1]])
frame({},c1=pd.Timestamp('2000')) frame({},c1='a') frame({},c1=pd.Categorical(['a']*len({})))
frame({},new=1.0) frame({}).drop(columns='c0') frame({}).astype(pd.SparseDtype(float,np.nan))
frame({},c1=1j) frame({},c1=pd.Timedelta(1)) frame({},c1=pd.NA) frame({})[:0] frame({})[[]]
pl.DataFrame({}).with_columns(pl.lit('a')) pl.DataFrame({}).lazy() pl.DataFrame({})[:0]
pl.DataFrame({}).with_columns(d=pl.lit(datetime.date(2000,1,1))) pd.Series({}[:,0])
pl.Series({}[:,0]) pa.array({}[:,0]) pd.Index({}[:,0]) pa.Table.from_pandas(frame({},c1='a'))
np.random.RandomState sparse.csr_array(({}.shape[0],0)) sparse.csr_array({}[:0])
sparse.csr_array({}[:,:-1]) sparse.csr_array({}+1j) sparse.csr_array({}[0])
torch.tensor({}).to(torch.complex64) torch.tensor({})[0] torch.tensor({}).to('meta')
torch.nested.nested_tensor([torch.ones(2),torch.ones(3)])
np.array([lambda:0]*6,dtype=object)[None] np.full({}.shape,object()) table(9) {}*1e160 {}*1e-320
{}*1e38 np.zeros({}.shape) np.full({}.shape,np.nan) np.full({}.shape,1e300)
with_values({}[:,:1],np.nan)
""")

WEIGHTS = expressions("""
np.ones({n}) np.arange({n}) np.linspace(0.1,3,{n}) list(range({n})) np.eye(1,{n})[0]
np.arange({n})%2 np.full({n},5e-324) np.full({n},1e300) np.full({n},1e-300)
np.logspace(-300,300,{n}) np.logspace(-20,20,{n}) np.ones({n},dtype=bool)
np.ones({n},dtype='float16') pd.Series(np.ones({n})) pl.Series(np.arange({n})) torch.ones({n})
pa.array(np.ones({n})) pd.Series([1]*{n},dtype='Int64') tuple([2]*{n}) np.ones({n},dtype=object)
np.arange({n})[::-1] frozen(np.ones({n})) None
""")

WRONG_WEIGHTS = expressions("""
np.zeros({n}) -np.ones({n}) np.full({n},np.nan) np.full({n},np.inf) np.ones({n}+1) np.ones(0)
np.ones(({n},1)) np.ones(({n},2)) ['a']*{n} [None]*{n} 'weight' {{}} object() np.ones({n})*1j 1.0
np.r_[-1e-9,np.ones({n}-1)] np.r_[np.nan,np.ones({n}-1)] sparse.csr_array(np.ones((1,{n})))
masked(np.ones({n}),0.5) frame(np.ones(({n},1))) pd.Series([pd.NA]*{n}) [[1]]*{n} 1 0 True
np.array(1.0) np.ones({n}).astype('M8[s]') holes_as(np.ones({n}),None) [10**400]*{n}
[Decimal(1)]*{n} [1j]*{n} [[1],[1,2]] as_generator(np.ones({n})) torch.ones({n}).to('meta')
np.full({n},object()) pd.Series(['a']*{n})
""")

TARGETS = expressions("""
None np.arange({n})%2 np.arange({n})%3 np.linspace(-1,1,{n}) np.array(['a','b']*{n})[:{n}]
list('ab'*{n})[:{n}] pd.Series(np.arange({n})%2) pl.Series(np.arange({n})%2) torch.arange({n})%2
np.stack([np.arange({n})%2]*2,1) np.zeros({n}) (np.arange({n})%2).astype(bool) 0 1 'a' True
frame(np.stack([np.arange({n})%2]*2,1)) pd.Series(list('ab'*{n})[:{n}],dtype='category')
""")

WRONG_TARGETS = expressions("""
np.zeros({n}+1) np.full({n},np.nan) np.full({n},np.inf) [None]*{n} object() {{}} 'nonsense'
np.zeros(({n},2,2)) np.zeros(0) 1j np.ones({n})*1j sparse.csr_array(np.ones(({n},2))) [[1],[1,2]]
np.ones({n}).astype('M8[s]') masked(np.ones({n})) [object()]*{n} holes_as(np.ones({n}),None)
np.nan np.full({n},1e300) [[1,'a']]*{n} [{{}}]*{n} pd.Series([pd.NA]*{n}) np.full(({n},0),1.0)
iter('ab')
""")

# What parameters and arguments are given at random, of any type.
ANYTHING = expressions("""
float('nan') float('inf') -float('inf') -1 0 1 2 3 10**30 -10**30 True False None '' b'' [] () {}
set() [[1,[2]]] [1] (2,) (3,2) [2.5] ['a'] [None] (0,) (-1,) (True,) (10**30,) np.float64(0.5)
np.float32(0.5) np.float64(2.0) np.float64('nan') np.bool_(True) np.int8(2) np.uint64(2)
np.int64(-1) 0.5 1.5 2.0 1e-300 1e300 5e-324 -0.0 0.0 'nonsense' 'auto' 'AUTO' 'a'*100 'none'
object object() int dict lambda:0 lambda*a:0 1j np.array([1,2]) np.array(2) np.array([])
np.ones((2,2)) np.array(['a']) torch.tensor(2) torch.ones(2) pd.NA Decimal(1) Fraction(1,2)
range(3) iter([]) ... NotImplemented type bytearray(2) slice(3) np.random.default_rng(0)
np.random.RandomState(0) np.datetime64('2000') datetime.date(2000,1,1) frame(np.ones((2,2)))
pd.Series([1,2]) sparse.csr_array(np.ones((2,2))) {0:1} {'a':'b'} 2**31 2**63 2**64
torch.nn.ReLU() torch.nn.ReLU torch.nn.Linear(6,2) [float('nan')] [[1,2],[3,4]] [[2,1]] '2' b'2'
1e10
""")


def spelled(template, rows_code):
    """A template with the expression of the rows in its places."""
    count = template.replace("{{", "").count("{}")
    return template.format(*[rows_code] * count)


def draw_rows(r, n, d, kind, allow_odd=True):
    """An expression of good or bad rows, and whether they are good without a doubt."""
    code = f"rows({n},{d},{kind!r},{r.randrange(100)})"
    choice = r.random()
    if choice < 0.25:
        return code, False
    if allow_odd and r.random() < 0.3:
        code = f"with_values({code},{r.choice(ODD_VALUES)},{r.choice([0.0, 0.2, 0.9])})"
    if choice < 0.6:
        return spelled(r.choice(CONTAINERS), code), True
    return spelled(r.choice(SPOILED), code), True


def draw_weights(r, n):
    good = r.random() < 0.6
    return r.choice(WEIGHTS if good else WRONG_WEIGHTS).format(n=n), True


def draw_targets(r, n):
    good = r.random() < 0.7
    return r.choice(TARGETS if good else WRONG_TARGETS).format(n=n), True
