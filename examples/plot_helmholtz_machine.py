"""
What a Helmholtz machine dreams of
==================================

The shifter problem: the lower half of an image is the upper one, shifted by a pixel to the left or
to the right. No pixel alone tells anything of that: a machine must find what pixels have to do
with each other. After some seconds two dreams of three or more are such images, of which there
are 508 among 4 billion, though it was never told what they have in common.
"""

from math import log
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from skae import HelmholtzMachine
from skae.datasets import make_shift_patterns, shift_patterns_entropy

# %%
# Images
# ------
# Many are equal: each is one row, and counts as often as it was drawn.

X, _ = make_shift_patterns(100_000, random_state=0)
X, counts = np.unique(X, axis=0, return_counts=True)
print(f"{counts.sum()} images, {len(X)} of them different")

# %%
# A machine
# ---------
# 32 hidden units below 10: as many as there are pixels in a row, and two for the direction.

machine = HelmholtzMachine(
    10, hidden_layer_sizes=32, algorithm="reweighted", max_iter=800, batch_size=100, random_state=0
)
machine.set_params(learning_rate_init=0.1, learning_rate="cosine")
machine.fit(X, sample_weight=counts)

# %%
# What an image costs
# -------------------
# In bits: by the free energy, with hidden units drawn by the machine's own recognition; by the
# importance-weighted bound, nearly its -log2 p(x); and at least, the entropy.

images, _ = make_shift_patterns(10_000, random_state=1)
on = images.mean(axis=0)
apart = -np.sum(on * np.log2(on) + (1 - on) * np.log2(1 - on))
costs = {
    "pixel by pixel": apart,
    "free energy": machine.free_energy(images).mean() / log(2),
    "importance-weighted bound": -machine.score(images) / log(2),
    "entropy": shift_patterns_entropy() / log(2),
}
for name, bits in costs.items():
    print(f"{name:<28}{bits:6.2f} bits")

# %%
# Dreams
# ------
# How many are images of the kind it saw?


def are_shifted(rows):
    """Whether images are one pixel row and its shift, each twice."""
    first, second, third, last = np.moveaxis(rows.reshape(-1, 4, 8), 1, 0)
    copies = (first == second).all(axis=1) & (third == last).all(axis=1)
    left, right = (np.roll(first, step, axis=1) for step in (-1, 1))
    return copies & ((last == left).all(axis=1) | (last == right).all(axis=1))


dreams = machine.dream(10_000, random_state=0)
share = are_shifted(dreams).mean()
print(f"{100 * share:.0f} % of the dreams are shift patterns")
assert are_shifted(X).all()
assert share > 0.6

# %%
# The picture
# -----------
# Weights of the hidden units on the pixels: black switches on, white off.


def tiled(rows, n_columns):
    """Images of 4 x 8 pixels as one, in lines of so many."""
    cells = np.pad(rows.reshape(-1, 4, 8), ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    return cells.reshape(-1, n_columns, 6, 10).swapaxes(1, 2).reshape(-1, 10 * n_columns)


rng = np.random.RandomState(2)
busy = images[images.sum(axis=1) > 0]
dreamt = dreams[dreams.sum(axis=1) > 0]
weights = machine.net_.module_.to_rows.weight.detach().cpu().numpy().T
strength = np.abs(weights).max(axis=1, keepdims=True)
panels = {
    "images": busy[rng.permutation(len(busy))[:32]],
    f"dreams, {100 * share:.0f} % of which are shift patterns": dreamt[:32],
    "weights of the 32 hidden units on pixels": 0.5 + 0.5 * weights / strength,
}
figure, grid = plt.subplots(3, 1, figsize=(9, 8.4), layout="constrained")
colours = plt.get_cmap("gray_r").with_extremes(bad="lightsteelblue")
for axes, (title, rows) in zip(grid, panels.items(), strict=True):
    axes.imshow(tiled(rows, 8), cmap=colours, vmin=0, vmax=1)
    axes.set_title(title, loc="left")
    axes.set_axis_off()
bits = costs["importance-weighted bound"]
figure.suptitle(f"The shifter: {bits:.2f} bits an image, where {costs['entropy']:.2f} must be")

path = Path("figures", "helmholtz_machine.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"\npicture: {path.resolve()}")
