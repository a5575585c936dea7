#!/usr/bin/env bash
# torch 2.13.0: the source of every torch.fx.GraphModule stays in memory after the module is gone.
#
# A good engineer's guess: a traced module that nobody refers to any longer leaves nothing behind.
# What happens: the module itself is freed, but the source of its forward method stays for good, in
# a cache of torch.fx and in an entry of Python's linecache, so that tracebacks could show it. There
# is no limit. A program that traces a network for each fit grows by the length of the source each
# time (here 0.7 kB for two operations), and more each time the graph is recompiled.
# `exec` of `graph.python_code("self").src` in a namespace of one's own leaves nothing behind.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import gc
import linecache
import platform
import tracemalloc
import weakref

import torch
from torch import fx, nn

print("Python", platform.python_version(), "torch", torch.__version__)
N = 1000


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return torch.relu(self.layer(x)) + 1


def trace_and_call():
    traced = fx.symbolic_trace(Net())
    traced(torch.ones(2, 3))
    return weakref.ref(traced)


for _ in range(20):
    trace_and_call()
gc.collect()
tracemalloc.start()
entries, memory = len(linecache.cache), tracemalloc.get_traced_memory()[0]
modules = [trace_and_call() for _ in range(N)]
gc.collect()
alive = sum(module() is not None for module in modules)
grown = (tracemalloc.get_traced_memory()[0] - memory) / N
left = len(linecache.cache) - entries
print(f"of {N} traced modules {alive} are alive; entries of linecache left: {left}")
print(f"memory left by each: {grown:.0f} bytes")
assert alive == 0
assert left == N
assert grown > 300
print("as described")
PY
