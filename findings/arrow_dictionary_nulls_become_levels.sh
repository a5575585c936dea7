#!/usr/bin/env bash
# pyarrow 26.0.1: to_numpy of a chunked dictionary column puts a level in the place of each null.
#
# A good engineer's guess: a column of a pyarrow table as a NumPy array has NaN or None where it has
# null, or raises, whatever the encoding of its values: the same column decoded has NaN or None,
# and so has one of its chunks.
# What happens: ChunkedArray.to_numpy() of dictionary-encoded values with nulls returns an array of
# levels in which every null is some level of the dictionary. Nothing warns. Of the chunk,
# Array.to_numpy(zero_copy_only=False) has NaN or None there; cast to the type of the values first,
# the column has, too. narwhals 2.28.0 hands the column to the former.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pyarrow==26.0.1 numpy==2.4.6 narwhals==2.28.0
"$folder/venv/bin/python" - <<'PY'
import platform

import narwhals
import narwhals.stable.v2 as nw
import numpy as np
import pyarrow as pa

print("Python", platform.python_version(), "pyarrow", pa.__version__, "numpy", np.__version__)
print("narwhals", narwhals.__version__)


def n_missing(values):
    return sum(value is None or value != value for value in values.tolist())


for values in (["b", None, "a", "b"], [2, None, 1, 2]):
    plain = pa.array(values)
    table = pa.table({"column": plain.dictionary_encode()})
    column = table["column"]
    found = {
        "null_count": column.null_count,
        "column": n_missing(column.to_numpy()),
        "its chunk": n_missing(column.chunk(0).to_numpy(zero_copy_only=False)),
        "column, decoded": n_missing(column.cast(plain.type).to_numpy()),
        "narwhals": n_missing(nw.from_native(table)["column"].to_numpy()),
    }
    print(values, "->", column.to_numpy().tolist(), "; missing values:", found)
    assert found == {
        "null_count": 1,
        "column": 0,
        "its chunk": 1,
        "column, decoded": 1,
        "narwhals": 0,
    }
print("as described")
PY
