#!/usr/bin/env bash
# skorch 1.4.0: a restored training goes on with its schedule only if LoadInitState stands before it.
#
# A good engineer's guess: TrainEndCheckpoint and LoadInitState save and restore a training, and the
# order of the callbacks does not matter; the history records the rates that were used.
# What happens: LRScheduler makes a new scheduler of torch at the beginning of each training, from
# the optimiser as it is then. If LoadInitState comes later in the list, it replaces the state of the
# optimiser below the scheduler. With StepLR, which divides the rate by 10 after every two epochs,
# the schedule then begins again at the restored rate, so that the fifth epoch has ten times the
# rate that it should have. The history shows other rates than those of the optimiser: 0.01 in the
# fourth epoch, in which the optimiser had 0.001. If LoadInitState comes first, both are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q numpy==2.4.6 skorch==1.4.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import skorch
import torch
from skorch.callbacks import Callback, LoadInitState, LRScheduler, TrainEndCheckpoint

print("skorch", skorch.__version__, "torch", torch.__version__)
X = np.random.RandomState(0).standard_normal((64, 3)).astype(np.float32)


class Rate(Callback):
    def on_batch_end(self, net, training, **kwargs):
        net.history.record("rate", net.optimizer_.param_groups[0]["lr"])


def train(n_epochs, folder, load=None):
    schedule = ("schedule", LRScheduler(policy="StepLR", step_size=2, gamma=0.1))
    save = TrainEndCheckpoint(dirname=folder)
    restore = ("restore", LoadInitState(save))
    middle = {"first": [restore, schedule], "last": [schedule, restore], None: [schedule]}[load]
    net = skorch.NeuralNetRegressor(
        torch.nn.Linear(3, 1),
        lr=0.01,
        max_epochs=n_epochs,
        callbacks=[*middle, ("rate", Rate()), ("save", save)],
        train_split=None,
        verbose=0,
    )
    history = net.fit(X, X[:, :1]).history
    return [" ".join(f"{value:g}" for value in history[:, name]) for name in ("rate", "event_lr")]


found = {"six epochs in a row": train(6, "whole")}
for place in ("first", "last"):
    train(3, place)
    found[f"3 and 3, LoadInitState {place}"] = train(3, place, load=place)
for title, (rate, recorded) in found.items():
    print(f"{title:28} rates of the optimiser: {rate:37} in the history: {recorded}")
right = ["0.01 0.01 0.001 0.001 0.0001 0.0001"] * 2
wrong = ["0.01 0.01 0.001 0.001 0.001 0.0001", "0.01 0.01 0.001 0.01 0.001 0.0001"]
assert list(found.values()) == [right, right, wrong]
print("as described")
PY
