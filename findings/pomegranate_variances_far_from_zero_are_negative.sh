#!/usr/bin/env bash
# pomegranate 1.1.2: fits of a Normal to rows a few thousand units from zero end with negative
# variances and no message, and min_cov, the least variance, is stored and not used.
#
# A good engineer's guess: rows in double precision with a standard deviation of 0.3 around 2,000,
# such as places in pixels or times in seconds, are no difficulty: the variances are those of NumPy.
# If rounding could give values that are no variances, min_cov would be their lower bound.
# What happens: sums of x and x² are in single precision, whatever the dtype of the rows, and the
# variance is E[x²] - E[x]². At 2,000 a step between neighbouring numbers of x² is 0.25 or 0.5.
# If the entries of the covariance matrix have a negative sum, fit returns a model with negative
# variances, and log_probability raises AttributeError, because no inverse was computed. At other
# places the variances are ten times too large, or fit raises an error of Cholesky's decomposition.
# With min_cov=1, the variances of narrow rows around zero are below 1, for all types.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 pomegranate==1.1.2 numpy==2.4.6 scipy==1.17.1 \
    scikit-learn==1.9.1 apricot-select==0.6.1
"$folder/venv/bin/python" - <<'PY'
import platform
from importlib.metadata import version

import numpy as np
import torch
from pomegranate.distributions import Normal

print("Python", platform.python_version(), "torch", torch.__version__, "pomegranate",
      version("pomegranate"), "numpy", np.__version__)
torch.set_num_threads(1)
rows = 0.3 * np.random.default_rng(0).normal(size=(1000, 2))  # float64
silent = raised = 0
for place in (0, 100, 500, 1000, 2000, 3000, 5000, 20_000):
    right = np.var(rows + place, axis=0)
    in_single = np.var((rows + place).astype(np.float32), axis=0)
    assert np.allclose(in_single, right, rtol=0.01)  # the rows themselves keep their variance
    try:
        model = Normal().fit(rows + place)
    except torch.linalg.LinAlgError as error:
        raised += 1
        print(f"{place:6}: raises {str(error)[:60]}...")
        continue
    found = model.covs.detach().diagonal().numpy()
    print(f"{place:6}: variances {found.round(4)}, NumPy {right.round(4)}")
    if place == 0:
        assert np.allclose(found, right, rtol=1e-3)
    if (found < 0).any():
        silent += 1
        try:
            model.log_probability(rows + place)
        except AttributeError as error:
            print(f"        log_probability raises AttributeError: {error}")
print(f"{silent} places with negative variances and no message, {raised} with an error")
assert silent >= 1

for kind in ("full", "diag", "sphere"):
    covs = Normal(min_cov=1.0, covariance_type=kind).fit(0.1 * rows).covs.detach()
    print(f"min_cov=1, {kind}: largest entry {float(covs.max()):.4f}")
    assert float(covs.max()) < 0.01
print("as described")
PY
