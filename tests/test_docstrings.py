"""One name, one meaning: what estimators say of parameters and attributes of the same name."""

import inspect
import re
from collections import defaultdict

import pytest
from contract_helpers import ESTIMATORS, every_estimator

# `encoder` and `decoder` share one entry.
OF_OWN_NETWORKS = {
    "AdversarialAE": "with a Gaussian posterior the encoder writes means and log variances",
    "VAE": "the encoder writes means and log variances, and the decoder may be conditioned",
    "VQVAE": "codes are vectors of the codebook",
}

# Where an equal name has another meaning, or another range: which estimators say so, each group
# alike among itself, and why. All others say the same, word for word; defaults may differ.
OTHER_PARAMETERS = {
    "algorithm": {"HelmholtzMachine": "ways to train networks, not a mixture"},
    "alpha": {"LinearAE": "penalises both maps in the squared units of the data"},
    **dict.fromkeys(["encoder", "decoder"], OF_OWN_NETWORKS),
    "hidden_layer_sizes": {"HelmholtzMachine": "layers of latent units, not of a network"},
    "image_shape": {"CountMixtureAE": "counts lie within an image, rows are none"},
    "likelihood": {"HelmholtzMachine": "of binary or Gaussian units only, and chosen by the data"},
    "init": {"CountMixtureAE": "of Gaussians, by quantiles, counts or a grid"},
    "latent_growth": {"VAE": "cuts codes of a bound, and opens none one by one"},
    "learning_rate": {"HelmholtzMachine LatentDensityEstimator": "no trials choose it"},
    "max_iter": {
        "CountMixtureAE PPCA": "EM has iterations, each over all rows",
        "HelmholtzMachine": "no trials find it",
        "LatentDensityEstimator": "the number of rows chooses it, not trials",
    },
    "n_components": {
        "CountMixtureAE": "components of the mixture; the code is one of them",
        "HelmholtzMachine": "the top one of several layers of latent units",
        "LatentDensityEstimator": "sets that of the autoencoder",
        "LinearAE": "also a share of the variance, or Minka's choice",
        "PPCA": "also a share of the variance, Minka's or BIC's choice",
        "VQVAE": "positions, which may follow from the layers",
    },
    "noise_variance": {
        "HelmholtzMachine": "has no linear start, which sets its floor",
        "PPCA": "is always estimated, and the prior of the loadings chooses its form",
    },
    "prior": {
        "AdversarialAE": "any distribution that can be drawn from",
        "VAE": "a density of latents, fixed or learned with the networks",
        "VQVAE": "of indices, learned after the networks",
    },
    "random_state": {
        "CountMixtureAE": "says what is random",
        "LatentDensityEstimator": "seeds what is wrapped, too",
        "LinearAE": "says which solvers are random",
        "PPCA": "says which solvers are random",
    },
    "solver": {
        "Autoencoder VAE": "their loss can be minimised over all rows at once, by L-BFGS",
        "LatentDensityEstimator": "likewise; and its causal network has matrices for Muon",
        "LinearAE": "ways to the same optimum, not optimisers of a network",
        "PPCA": "ways to the same optimum, not optimisers of a network",
    },
    "tol": {
        "HelmholtzMachine LatentDensityEstimator": "leave the end to no trials",
        "CountMixtureAE": "of iterations of EM, per count",
        "LinearAE": "of ARPACK, as in PCA",
        "PPCA": "of steps of EM, per value",
    },
    "warm_start": {
        "CountMixtureAE": "begins with Gaussians, of which there may be more now",
        "LatentDensityEstimator": "there are two models to go on with",
    },
}

OTHER_ATTRIBUTES = {
    "axes_": {"PPCA": "also of loadings that are not along the axes of PCA"},
    "components_": {
        "LinearAE": "depends on alpha and whiten",
        "AdversarialAE Autoencoder VAE": "of the decoder at the mean code",
    },
    "explained_variance_": {
        "LinearAE": "it is the variance of the codes, in some cases",
        "AdversarialAE Autoencoder VAE": "of reconstructions, to first order",
    },
    "explained_variance_ratio_": {
        "AdversarialAE Autoencoder VAE": "of reconstructions, to first order"
    },
    "history_": dict.fromkeys(
        ["AdversarialAE", "HelmholtzMachine", "LatentDensityEstimator", "VAE", "VQVAE"],
        "names the terms of the loss",
    ),
    "mean_": {"AdversarialAE Autoencoder VAE": "of the decoder, not of the rows"},
    "n_components_": {
        "CountMixtureAE": "components of all mixtures that are averaged",
        "HelmholtzMachine": "the top one of several layers of latent units",
        "VQVAE": "positions",
    },
    "n_iter_": {
        "CountMixtureAE": "EM has iterations",
        "LatentDensityEstimator": "the density may be one of scikit-learn's",
        "LinearAE": "L-BFGS has iterations",
        "PPCA": "EM has iterations",
    },
    "noise_variance_": {
        "LinearAE": "as PCA's, with n - 1",
        "PPCA": "of maximum likelihood, with a floor",
    },
    "singular_values_": {"PPCA": "of the rows only for complete rows and one noise variance"},
}


def sections(Estimator):
    """The sections of the docstring of a class, by title."""
    doc = inspect.cleandoc(Estimator.__doc__)
    parts = re.split(r"^(\w[\w ]*)\n-+\n", doc, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def entries(Estimator, section):
    """By name what a section says: type, without the default, and description."""
    found = {}
    for item in re.split(r"^(?=\S)", sections(Estimator)[section], flags=re.MULTILINE):
        if item.strip():
            head, _, text = item.partition("\n")
            names, _, kind = head.partition(" : ")
            kind = re.sub(r",\s+default=.*", "", kind)
            found |= dict.fromkeys(names.split(", "), (kind, " ".join(text.split())))
    return found


def said(section):
    """By name, what each estimator says of it."""
    by_name = defaultdict(dict)
    for Estimator in ESTIMATORS:
        for name, entry in entries(Estimator, section).items():
            by_name[name][Estimator.__name__] = entry
    return by_name


@pytest.mark.parametrize(
    ("section", "others"), [("Parameters", OTHER_PARAMETERS), ("Attributes", OTHER_ATTRIBUTES)]
)
def test_equal_names_have_equal_docstrings(section, others):
    """A reader who knows a parameter of one estimator knows it of all, but for those listed."""
    by_name = said(section)
    assert not others.keys() - by_name.keys()
    for name, entry_of in by_name.items():
        groups = [group.split() for group in others.get(name, {})]
        listed = [estimator for group in groups for estimator in group]
        assert not set(listed) - entry_of.keys(), f"{name} is listed where it does not exist"
        rest = [estimator for estimator in entry_of if estimator not in listed]
        meanings = []
        for group in [rest, *groups]:
            for estimator in group:
                assert entry_of[estimator] == entry_of[group[0]], (
                    f"{name} of {estimator} and of {group[0]} are said differently"
                )
            meanings += [entry_of[estimator] for estimator in group[:1]]
        assert len(meanings) == len(set(meanings)), f"{name} is listed, and said alike"


@every_estimator
def test_parameters_are_documented_in_their_order(Estimator):
    """The docstring names every parameter of the signature, in the same order."""
    parameters = list(inspect.signature(Estimator).parameters)
    assert list(entries(Estimator, "Parameters")) == parameters
