#!/usr/bin/env bash
# threadpoolctl 3.8.0 with NumPy's OpenBLAS: after threadpool_limits(...) was called as a function, limits
# that other threads ask for are ignored without a word.
#
# A good engineer's guess: `threadpool_limits(limits=1)` at the top of a script sets a number once, and
# `with threadpool_limits(limits=2)` elsewhere, in a worker thread too, changes it for the block.
# What happens: since OpenBLAS has one number for the process, 3.8 lets one thread at a time control
# it. A `with` block gives control back at its end. A call without `with` keeps it until a block
# of the same thread ends, or that thread; the main thread lives to the end. Meanwhile blocks in
# every other thread enter and leave, and nothing changes. Restoring the limit by
# `restore_original_limits` in another thread does nothing, either.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 threadpoolctl==3.8.0
"$folder/venv/bin/python" - <<'PY'
import platform
from concurrent.futures import ThreadPoolExecutor

import numpy
import threadpoolctl
from threadpoolctl import threadpool_info, threadpool_limits

print("Python", platform.python_version(), "NumPy", numpy.__version__, end=" ")
print("threadpoolctl", threadpoolctl.__version__)


def number():
    return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}


def within_a_block():
    with threadpool_limits(limits=2, user_api="blas"):
        return number()


def elsewhere(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


first = elsewhere(within_a_block)
with threadpool_limits(limits=1, user_api="blas"):
    inside = elsewhere(within_a_block)
between = elsewhere(within_a_block)
limit = threadpool_limits(limits=1, user_api="blas")
after = elsewhere(within_a_block)
elsewhere(limit.restore_original_limits)
restored_elsewhere = number()
here, at_last = within_a_block(), elsewhere(within_a_block)
print(f"2 asked for in another thread: {first}")
print(f"  within a block of the main thread: {inside}, after that block: {between}")
print(f"  after a call in the main thread: {after}")
print(f"restored in another thread: {restored_elsewhere}")
print(f"2 asked for in the main thread: {here}, and then in another: {at_last}")
assert (first, inside, between) == ({2}, {1}, {2})
assert after == restored_elsewhere == {1}
assert here == at_last == {2}
print("as described")
PY
