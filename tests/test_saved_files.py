"""Files of every released version are loaded, compute what they computed, and train further.

The files and their results are in tests/saved/<version>; tests/save_fixtures.py writes them. That
what they compute is right is tested elsewhere: here it must be the same as when they were saved.
"""

import inspect
import lzma
import warnings

import numpy as np
import pytest
import skops.io
import torch
from save_fixtures import ENDING, FOLDER, MODELS, computed, read, save, stored
from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning

import skae

HOW = "Run `python tests/save_fixtures.py`, and commit the files."
PRESENT = FOLDER / skae.__version__
every_file = pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=f"{path.parent.name}-{path.name.removesuffix(ENDING)}")
        for path in sorted(FOLDER.glob(f"*/*{ENDING}"))
    ],
)


def load(path):
    """As docs/how_to/save_load_serve.md says: the types that are not trusted are read first."""
    data = lzma.decompress(path.read_bytes())
    unknown = skops.io.get_untrusted_types(data=data)
    assert unknown
    assert all(name.startswith(("skae.", "sklearn.")) for name in unknown), unknown
    with warnings.catch_warnings():  # also of scikit-learn, whose version is not that of skae
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        return skops.io.loads(data, trusted=unknown)


def name_of(path):
    return path.name.removesuffix(ENDING)


def expected_of(path):
    return read(path.parent)[name_of(path)]


@every_file
def test_a_file_computes_what_it_computed(path):
    """Scores, codes, decoded rows and samples.

    Sums of float32 have another order on other processors and with other versions of torch, which
    changes the last of seven digits; draws add the rounding of the generator's logarithms. A wrong
    weight or a wrong unit changes the first digits.
    """
    expected = expected_of(path)
    rows, y = stored(expected, "rows"), stored(expected, "y")
    found = computed(load(path), rows, y, draws=any(k.startswith("sample") for k in expected))
    given = {key for key in expected if key.split("/")[0] in ("rows", "y")}
    assert found.keys() == expected.keys() - given
    for key, value in found.items():
        if value.dtype.kind == "f":
            atol = 1e-4 * max(1.0, np.abs(expected[key]).max())
            np.testing.assert_allclose(value, expected[key], rtol=0, atol=atol, err_msg=key)
        else:
            np.testing.assert_array_equal(value, expected[key], err_msg=key)


def going_on(model):
    """The method that continues training: partial_fit, or fit with warm_start; None if none."""
    if hasattr(model, "partial_fit"):
        return model.partial_fit
    if "warm_start" in model.get_params(deep=False):
        return model.set_params(warm_start=True).fit
    return None


@every_file
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_training_goes_on_after_a_file(path):
    """What follows is added to what the file has, and the model is not begun again."""
    model, expected = load(path), expected_of(path)
    learn = going_on(model)
    if learn is None:
        pytest.skip("the estimator does not continue its training")
    rows, y = stored(expected, "rows"), stored(expected, "y")
    given = {} if y is None else {"y": y}
    before, score = epochs_or_rows(model), model.score(rows, **given)
    learn(rows, **given)
    if before is not None:
        one_epoch = learn.__name__ == "partial_fit" and hasattr(model, "n_iter_")
        more = len(rows) if not hasattr(model, "n_iter_") else 1 if one_epoch else model.max_iter
        assert epochs_or_rows(model) == before + more
    after = model.score(rows, **given)
    assert after != score
    assert np.isfinite(after)
    optimizer = getattr(getattr(model, "net_", None), "optimizer_", None)
    if isinstance(optimizer, torch.optim.Adam):  # its averages go on, too
        assert max(state["step"] for state in optimizer.state.values()) > model.n_iter_ - 1


def epochs_or_rows(model):
    """The number of epochs, of which the history has one entry each, or of rows."""
    if hasattr(model, "history_"):
        assert len(model.history_) == model.n_iter_
        return model.n_iter_
    return getattr(model, "n_samples_seen_", None)


# ------------------------------------------------------------------- which files there are


def test_every_public_estimator_has_a_file_of_this_version():
    """Estimators are discovered; the script lists the models, which need parameters."""
    assert PRESENT.is_dir(), f"There are no files of skae {skae.__version__}. {HOW}"
    names = {path.name.removesuffix(ENDING) for path in PRESENT.glob(f"*{ENDING}")}
    assert names == set(MODELS) == set(read(PRESENT)), HOW
    public = {
        value
        for value in (getattr(skae, name) for name in skae.__all__)
        if inspect.isclass(value) and issubclass(value, BaseEstimator)
    }
    saved = {type(load(PRESENT / f"{name}{ENDING}")) for name in names}
    assert saved == public, "Add models to MODELS of tests/save_fixtures.py. " + HOW


def test_files_of_this_version_have_all_its_parameters():
    """Files that were written before a parameter was added would be of no released version."""
    for name, model in MODELS.items():
        saved = load(PRESENT / f"{name}{ENDING}")
        assert vars(saved).keys() >= set(saved.get_params(deep=False)), HOW
        assert saved.get_params(deep=False).keys() == model.estimator.get_params(deep=False).keys()


def test_files_are_small():
    for folder in FOLDER.iterdir():
        assert sum(path.stat().st_size for path in folder.iterdir()) < 300_000


def test_files_of_other_versions_are_never_written(tmp_path):
    with pytest.raises(ValueError, match=r"version='0\.1\.9' must be the installed version"):
        save("0.1.9", tmp_path)
    assert not list(tmp_path.iterdir())
