#!/usr/bin/env bash
# anndata 0.12.6 with scipy 1.17.1: rows of a sparse matrix in a file cannot be sliced.
#
# A good engineer's guess: anndata 0.12 allows scipy>=1.12 without an upper limit and imports
# without a warning, so that adata.X[10:20] of a file opened with backed="r" returns rows.
# What happens: backed sparse matrices call _validate_indices, a private method of SciPy, which
# SciPy 1.17 no longer has. Every slice of rows raises AttributeError, and so does X of a view,
# while X.to_memory(), and slices of the parts X.group["data"], ["indices"] and ["indptr"] work.
# Beside it: files cannot be written with the strings that pandas 3 makes of names by default,
# unless the index has the type object.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q anndata==0.12.6 scipy==1.17.1 pandas==3.1.1 numpy==2.4.6 \
    h5py==3.16.0 zarr==3.1.6 pyarrow==26.0.1
"$folder/venv/bin/python" -W ignore - "$folder" <<'PY'
import sys
from importlib.metadata import version

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

print(", ".join(f"{name} {version(name)}" for name in ("anndata", "scipy", "pandas", "h5py")))
path = f"{sys.argv[1]}/rows.h5ad"
X = sparse.csr_matrix(np.eye(6, 4, dtype=np.float32))


def outcome(call):
    try:
        return f"works: {type(call()).__name__}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:70]}"


written = outcome(lambda: anndata.AnnData(X).write_h5ad(path))
print("written with names by default:", written)
names = (pd.DataFrame(index=pd.Index(map(str, range(n)), dtype=object)) for n in X.shape)
anndata.AnnData(X, *names).write_h5ad(path)
rows = anndata.read_h5ad(path, backed="r").X
calls = {
    "X[1:3]": lambda: rows[1:3],
    "X.to_memory()": rows.to_memory,
    "X.group['data'][1:3]": lambda: rows.group["data"][1:3],
}
found = {name: outcome(call) for name, call in calls.items()}
for name, what in found.items():
    print(f"{name}: {what}")
assert written.startswith("IORegistryError: No method registered for writing")
assert found["X[1:3]"].startswith("AttributeError") and "_validate_indices" in found["X[1:3]"]
assert found["X.to_memory()"] == "works: csr_matrix"
assert found["X.group['data'][1:3]"] == "works: ndarray"
print("as described")
PY
