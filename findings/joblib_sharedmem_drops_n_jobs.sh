#!/usr/bin/env bash
# joblib 1.6.0: where Parallel(require="sharedmem") replaces a backend of processes that the user has
# set, it takes over the threading backend but not the number of jobs.
#
# A good engineer's guess: in parallel_config("loky", n_jobs=2), a Parallel that requires shared
# memory runs two threads. And Parallel(prefer="threads"), without require, runs threads there.
# What happens: require="sharedmem" runs one thread, in silence; n_jobs has to be given to Parallel
# itself, or the user has to ask for "threading". prefer="threads" gives way to the user's loky,
# where closures write into copies of their arrays: results are lost without an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q joblib==1.6.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import platform
import threading
import time

import joblib
import numpy as np

print("Python", platform.python_version(), "joblib", joblib.__version__, "numpy", np.__version__)


def threads_used(**options):
    def work(_):
        time.sleep(0.05)
        return threading.get_ident()

    found = joblib.Parallel(**options)(joblib.delayed(work)(i) for i in range(8))
    return len(set(found))


def written(**options):
    array = np.zeros(4)

    def write(i):
        array[i] = 1.0

    joblib.Parallel(**options)(joblib.delayed(write)(i) for i in range(4))
    return int(array.sum())


found = {}
with joblib.parallel_config("loky", n_jobs=2):
    found["loky, n_jobs=2: require='sharedmem'"] = threads_used(require="sharedmem")
    found["loky, n_jobs=2: require='sharedmem', own n_jobs=2"] = threads_used(
        require="sharedmem", n_jobs=2
    )
    found["loky, n_jobs=2: numbers written by prefer='threads', of 4"] = written(prefer="threads")
with joblib.parallel_config("threading", n_jobs=2):
    found["threading, n_jobs=2: require='sharedmem'"] = threads_used(require="sharedmem")
for case, result in found.items():
    print(f"{case:60} {result}")
assert list(found.values()) == [1, 2, 0, 2]
print("as described")
PY
