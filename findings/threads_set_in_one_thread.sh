#!/usr/bin/env bash
# torch 2.13.0 (CPU): set_num_threads in one thread decides for threads that begin later, and for none
# that has computed before.
#
# A good engineer's guess: torch.set_num_threads, documented as the number of threads for parallelism
# within operations on the CPU, holds for the process; or else, as of libraries with limits of each
# thread, for the thread that calls it. A library that sets it for a while and sets it back
# afterwards leaves nothing behind.
# What happens: both. A thread that has used torch keeps the number that it had. A thread that uses
# torch for the first time takes the number that any thread set last, and keeps it: one that
# begins while a library has set a lower number for a while computes with that for good, after
# the library has set its own thread back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import platform
from concurrent.futures import ThreadPoolExecutor

import torch

print("Python", platform.python_version(), "torch", torch.__version__)
old, young = ThreadPoolExecutor(1), ThreadPoolExecutor(1)


def number(pool):
    return pool.submit(torch.get_num_threads).result()


torch.set_num_threads(2)
before = number(old)  # this thread has used torch now
torch.set_num_threads(1)  # for a while
during = torch.get_num_threads(), number(old), number(young)
torch.set_num_threads(2)  # and back
after = torch.get_num_threads(), number(old), number(young)
print(f"a thread that used torch before: {before}")
print(f"while it is 1: here {during[0]}, there {during[1]}, in a thread that begins {during[2]}")
print(f"set back to 2: here {after[0]}, there {after[1]}, in that thread {after[2]}")
assert (before, during, after) == (2, (1, 2, 1), (2, 2, 1))
print("as described")
PY
