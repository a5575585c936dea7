#!/usr/bin/env bash
# pomegranate 1.1.2: samples of a Normal with diagonal covariance have its variances as standard
# deviations.
#
# A good engineer's guess: Normal(means, covs, covariance_type="diag").sample(n) has the variances
# covs, as log_probability and fit take them, and as samples of the same distribution with
# covariance_type="full" have. A model that is fitted to its own samples is then the same model.
# What happens: variances of 4 and 100 give samples of variances 16 and 10,000. Only variances of 1
# are right. log_probability and fit are right for both types, so that samples of fitted mixtures
# and of hidden Markov models are wrong where the fit is not. The third type, "sphere", has no
# samples: sample returns None without a message.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 pomegranate==1.1.2 numpy==2.4.6 scipy==1.17.1 \
    scikit-learn==1.9.1 apricot-select==0.6.1
"$folder/venv/bin/python" - <<'PY'
import math
import platform
from importlib.metadata import version

import torch
from pomegranate.distributions import Normal
from pomegranate.gmm import GeneralMixtureModel

print("Python", platform.python_version(), "torch", torch.__version__, "pomegranate",
      version("pomegranate"))
torch.manual_seed(0)
means, variances = torch.tensor([0.0, 0.0]), torch.tensor([4.0, 100.0])
diagonal = Normal(means, variances, covariance_type="diag")
full = Normal(means, torch.diag(variances), covariance_type="full")

at_zero = [float(d.log_probability(torch.zeros(1, 2))) for d in (diagonal, full)]
expected = -math.log(2 * math.pi) - 0.5 * math.log(4 * 100)
print("log density at the mean: diag", round(at_zero[0], 4), "full", round(at_zero[1], 4),
      "by hand", round(expected, 4))
assert max(abs(a - expected) for a in at_zero) < 1e-4

models = {"diag": diagonal, "full": full}
of_samples = {name: model.sample(100_000).var(dim=0) for name, model in models.items()}
for name, found in of_samples.items():
    print(f"variances of 100,000 samples of {name}:", [round(float(v), 1) for v in found])
assert torch.allclose(of_samples["full"], variances, rtol=0.05)
assert torch.allclose(of_samples["diag"], variances**2, rtol=0.05)

mixture = GeneralMixtureModel([Normal(means, variances, covariance_type="diag") for _ in range(2)])
again = Normal(covariance_type="diag").fit(mixture.sample(100_000))
print("variances fitted to samples of a mixture of two such:",
      [round(float(v), 1) for v in again.covs])
assert torch.allclose(again.covs.detach(), variances**2, rtol=0.05)

samples = Normal(covariance_type="sphere").fit(torch.randn(100, 2)).sample(3)
print("samples of a fitted Normal with covariance_type='sphere':", samples)
assert samples is None
print("as described")
PY
