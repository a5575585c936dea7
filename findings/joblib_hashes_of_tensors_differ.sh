#!/usr/bin/env bash
# joblib 1.6.0 with torch 2.13.0: equal tensors and modules have another hash in every process.
#
# A good engineer's guess: joblib.hash of equal values is equal, as it is for NumPy arrays, so that
# joblib.Memory finds the results of an earlier process.
# What happens: joblib hashes the pickle of a value, and torch pickles the storage of a tensor in a
# form that contains its address. The hash therefore differs in every process. A function that is
# cached by joblib.Memory, and has a tensor or a module among its arguments, is computed again in
# every process, without a warning, and the cache grows each time. The arrays of
# `tensor.numpy()` and of `module.state_dict()` can be hashed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q numpy==2.4.6 joblib==1.6.0
cd "$folder"
cat > once.py <<'PY'
import joblib
import numpy as np
import torch

torch.manual_seed(0)


def total(values, name):
    with open(f"calls_of_{name}", "a") as file:
        file.write("called\n")
    return float(values.sum())


cached = joblib.Memory("cache", verbose=0).cache(total)
array, tensor, module = np.ones(3), torch.ones(3), torch.nn.Linear(3, 2)
cached(array, "array")
cached(tensor, "tensor")
print(*(joblib.hash(value) for value in (array, tensor, module)))
PY
for _ in 1 2 3; do venv/bin/python once.py >> hashes; done
venv/bin/python -c 'import joblib, torch; print("joblib", joblib.__version__, "torch", torch.__version__)'
n_hashes() { cut -d ' ' -f "$1" hashes | sort -u | wc -l; }
n_calls() { wc -l < "calls_of_$1"; }
hashes="array $(n_hashes 1), tensor $(n_hashes 2), module $(n_hashes 3)"
calls="array $(n_calls array), tensor $(n_calls tensor)"
echo "different hashes in three processes: $hashes"
echo "calls of the cached function in three processes: $calls"
test "$hashes" = "array 1, tensor 3, module 3"
test "$calls" = "array 1, tensor 3"
echo "as described"
