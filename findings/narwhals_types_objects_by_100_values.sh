#!/usr/bin/env bash
# narwhals 2.28.0: an object column of pandas is String if its first 100 values are text.
#
# A good engineer's guess: the schema of a frame tells what its columns hold, so that code may trust
# that a column of type String holds text and missing values, and nothing else.
# What happens: pandas' object columns have no type of their own, and narwhals infers one from
# the first 100 values. Numbers further down leave the type at String, and come out of to_list as
# numbers; one number among the first 100 makes the same column an Object.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q narwhals==2.28.0 pandas==3.1.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import platform

import narwhals
import narwhals.stable.v2 as nw
import pandas as pd

print("Python", platform.python_version(), "narwhals", narwhals.__version__, "pandas", pd.__version__)


def type_of(values):
    series = nw.from_native(pd.Series(values, dtype=object), series_only=True)
    return str(series.dtype), sorted({type(value).__name__ for value in series.to_list()})


found = {n: type_of(["text"] * n + [7] + ["text"] * 50) for n in (50, 99, 100, 150)}
for n, (dtype, types) in found.items():
    print(f"a number after {n:3} texts: {dtype}, of {types}")
assert all(types == ["int", "str"] for _, types in found.values())
assert {n: dtype for n, (dtype, _) in found.items()} == {
    50: "Object",
    99: "Object",
    100: "String",
    150: "String",
}
print("as described")
PY
