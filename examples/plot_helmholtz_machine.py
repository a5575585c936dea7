"""
Samples of a Helmholtz machine
==============================

In the shifter problem, the lower half of a binary image is its upper half, shifted by one pixel to
the left or to the right. A single pixel says nothing about the direction, so that the model must
learn how pixels depend on each other. Of the 4 billion images of this size, 508 are shift patterns.
After a few seconds of training, more than half of the images that the Helmholtz machine samples are
shift patterns.
"""

from math import log

import matplotlib.pyplot as plt
import numpy as np

from skae import HelmholtzMachine
from skae.datasets import make_shift_patterns, shift_patterns_entropy
from skae.plotting import SampleDisplay

# %%
# The images
# ----------
# An image has 4 x 8 pixels. Many of the 100,000 images are equal. Every different image is one row,
# and `sample_weight` is the number of its copies.

X, _ = make_shift_patterns(100_000, random_state=0)
X, counts = np.unique(X, axis=0, return_counts=True)
print(f"{counts.sum()} images, of which {len(X)} are different")

# %%
# Train the machine
# -----------------
# The machine has 10 units in its top layer: one for each of the 8 pixels of a line, and two for the
# direction of the shift. A layer of 32 units stands between the top layer and the pixels.

machine = HelmholtzMachine(
    10,
    hidden_layer_sizes=32,
    algorithm="reweighted",
    learning_rate="cosine",
    learning_rate_init=0.4,
    max_iter=400,
    batch_size=100,
    random_state=0,
).fit(X, sample_weight=counts)

# %%
# The code length of an image
# ---------------------------
# The code length -log2 p(x) is the number of bits that an optimal code needs for the image x. Four
# mean code lengths are compared. For the first, each pixel is coded without regard to the others.
# The free energy is an upper bound on the code length, computed with hidden units that the
# recognition model draws. The importance-weighted bound is a tighter upper bound. The entropy of
# the images is the smallest mean code length that any model can have.

images, _ = make_shift_patterns(10_000, random_state=1)
on = images.mean(axis=0)
bits = {
    "pixel by pixel": -np.sum(on * np.log2(on) + (1 - on) * np.log2(1 - on)),
    "free energy": machine.free_energy(images).mean() / log(2),
    "importance-weighted bound": -machine.score(images) / log(2),
    "entropy": shift_patterns_entropy() / log(2),
}
for name, length in bits.items():
    print(f"{name:<28}{length:6.2f} bits")

# %%
# Samples
# -------
# `dream` samples images from the top layer down. The share of them that are shift patterns:


def are_shifted(rows):
    """Whether images are one line of pixels and its shift, each of them twice."""
    first, second, third, last = np.moveaxis(rows.reshape(-1, 4, 8), 1, 0)
    copies = (first == second).all(axis=1) & (third == last).all(axis=1)
    left, right = (np.roll(first, step, axis=1) for step in (-1, 1))
    return copies & ((last == left).all(axis=1) | (last == right).all(axis=1))


dreams = machine.dream(10_000, random_state=0)
share = are_shifted(dreams).mean()
print(f"{share:.0%} of the sampled images are shift patterns")
assert are_shifted(X).all()
assert share > 0.6

# %%
# Images of the data and sampled images; those without a black pixel are left out.

busy = images[images.any(axis=1)]
display = SampleDisplay(dreams[dreams.any(axis=1)][:28], busy[:28], image_shape=(4, 8)).plot()

# %%
# The weights of the 32 hidden units on the pixels, each divided by its largest absolute value.
# A black pixel is made more probable by the unit, a white pixel less probable.

weights = machine.net_.module_.to_rows.weight.detach().cpu().numpy().T
weights = weights / np.abs(weights).max(axis=1, keepdims=True)
display = SampleDisplay(weights, image_shape=(4, 8), limits=(-1, 1)).plot()
display.ax_.set_title("Weights of the hidden units")

plt.show()
