"""What notebooks show of models: valid HTML, everywhere, at any time, and cheaply."""

import pickle
import re
from html.parser import HTMLParser

import numpy as np
from contract_helpers import (
    ESTIMATORS,
    every_estimator,
    fitted,
    make_data,
    small,
    trained_on_batches,
)
from sklearn import config_context
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr

from helpers import make_rows, network
from skae import PPCA, Autoencoder, Ensemble, LatentDensityEstimator
from skae._utils.html import SCORES

VOID = {"input", "br", "meta", "link", "img", "hr"}


class Tree(HTMLParser):
    """Checks that elements are closed in order; collects rows of tables by their summary."""

    def __init__(self, html):
        super().__init__()
        self.open, self.cells, self.rows, self.title = [], None, [], None
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells = []
        elif tag in ("td", "summary"):
            self.text = ""

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag
        if tag == "summary":
            self.title = self.text.strip()
        elif tag == "td":
            self.cells.append(" ".join(self.text.split()))
        elif tag == "tr":
            self.rows.append((self.title, *self.cells))

    def handle_data(self, data):
        self.text = getattr(self, "text", "") + data


def summaries(model):
    """The summaries in the diagram of a model, as a list of dicts."""
    found = []
    for title, *cells in Tree(estimator_html_repr(model)).rows:
        if title == "Fitted model":
            if cells[0] == "score":
                found.append({})
            found[-1][cells[0]] = cells[1]
    return found


@every_estimator
def test_the_summary_says_what_was_fitted(Estimator):
    model = fitted(Estimator)
    shown = summaries(model)[0]
    assert shown["score"] == SCORES[model.score_kind]
    assert shown["latent size"] == "2 for 6 features"
    if trained_on_batches(Estimator):
        history = model.history_
        held_out = "valid_loss" in history[-1]  # VQVAE holds rows out for its prior
        rows = "held-out rows" if held_out else "training rows"
        losses = [entry["valid_loss" if held_out else "train_loss"] for entry in history]
        best = int(np.argmin(losses))
        assert shown["epochs"] == str(len(history))
        assert shown["best loss"] == (f"{losses[best]:.4g} nats per row ({rows}, epoch {best + 1})")
        sizes = [np.size(p.detach().numpy()) for p in model.net_.module_.parameters()]
        assert shown["parameters"] == f"{sum(sizes):,} weights"
        assert shown["device"] == str(model.net_.device)


@every_estimator
def test_unfitted_models_are_shown_as_by_scikit_learn(Estimator):
    assert summaries(Estimator()) == []
    assert not len(Estimator()._get_fitted_attr_html())
    assert "Fitted attributes" not in Estimator()._repr_html_()


def test_stored_attributes_are_below_the_summary():
    rows = Tree(fitted(PPCA)._repr_html_()).rows
    names = [cells[0] for title, *cells in rows if title == "Fitted attributes" and cells]
    assert {"components_", "noise_variance_", "mean_"} <= set(names)
    assert ("Fitted attributes", "mean_", "ndarray[float64](6,)") in [r[:3] for r in rows]


def test_free_parameters_of_closed_forms():
    [shown] = summaries(fitted(PPCA))
    assert shown["parameters"] == str(6 + 6 * 2 + 1 - 1)  # mean, loadings, noise; one rotation
    assert "device" not in shown


def test_held_out_losses_are_those_that_count():
    model = network(early_stopping=True, max_iter=3).fit(make_rows())
    [shown] = summaries(model)
    best = min(entry["valid_loss"] for entry in model.history_)
    assert shown["best loss"].startswith(f"{best:.4g} nats per row (held-out rows, epoch ")


def test_inside_pipelines_searches_and_other_estimators():
    X = make_data(PPCA)
    pipeline = make_pipeline(StandardScaler(), PPCA(2)).fit(X)
    assert len(summaries(pipeline)) == 1
    search = GridSearchCV(make_pipeline(StandardScaler(), PPCA()), {"ppca__n_components": [1]})
    assert summaries(search) == []
    assert [s["latent size"] for s in summaries(search.fit(X))] == ["1 for 6 features"]
    density = LatentDensityEstimator(PPCA(2), density=GaussianMixture()).fit(X)
    assert summaries(density)[0]["score"] == SCORES[density.score_kind]
    Tree(estimator_html_repr(Ensemble(PPCA(2), 2).fit(X)))


def test_text_is_escaped():
    model = small(PPCA).fit(make_data(PPCA))
    model.note_ = "<script>alert('&')</script>"
    model.n_features_in_ = "<b>6</b>"
    html = model._repr_html_()
    assert "<b>" not in re.sub("<b>In a Jupyter", "", html)
    assert "<script>alert" not in html
    Tree(html)


class Hostile:
    def __repr__(self):
        raise RuntimeError("no text")


@every_estimator
def test_it_never_fails(Estimator):
    """Not if attributes are missing, as in old files and in a fit, and not for any value."""
    for name in [n for n in vars(fitted(Estimator)) if n not in Estimator().get_params()]:
        model = pickle.loads(pickle.dumps(fitted(Estimator)))
        delattr(model, name)
        Tree(model._repr_html_())
        setattr(model, name, Hostile())
        Tree(model._repr_html_())


def test_properties_are_not_computed():
    class Costly(Autoencoder):
        @property
        def components_(self):
            raise AssertionError("computed")

    model = Costly(2, max_iter=1, random_state=0).fit(make_rows())
    assert "Fitted model" in model._repr_html_()


def test_without_diagrams_it_is_text():
    with config_context(display="text"):
        assert not hasattr(fitted(PPCA), "_repr_html_")


def test_every_kind_of_score_has_words():
    for Estimator in ESTIMATORS:
        assert fitted(Estimator).score_kind in SCORES
