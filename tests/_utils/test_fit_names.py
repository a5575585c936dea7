"""Names of what a fit is part of."""

from skae import PPCA
from skae._utils.fit_names import described, numbered, parameter, part_of, present_parts

FOLDS = [numbered("fold", i, 3) for i in range(3)]


def test_parts_are_nested_and_end_with_their_block():
    with part_of(FOLDS[0]):
        with part_of(parameter("n_components", 8)):
            assert described([present_parts()]) == "fold 1 of 3, n_components=8"
        with part_of(FOLDS[1], within=()):
            assert present_parts() == (FOLDS[1],)
        assert present_parts() == (FOLDS[0],)
    assert present_parts() == ()


def test_several_fits_are_summarised():
    """By the number of folds and the values of the parameters; a fold may contain folds."""
    sizes = [parameter("n_components", k) for k in (2, 4)]
    fits = [(fold, size) for size in sizes for fold in FOLDS]
    assert described(fits) == "3 folds, n_components=2, 4"
    within = [(FOLDS[2], fold) for fold in FOLDS[:2]]
    assert described(within) == "fold 3 of 3, 2 folds"
    assert described([()]) == ""


def test_long_values_are_cut():
    """Names stay within a line, also with an estimator or a function as a value."""
    assert str(parameter("f", test_long_values_are_cut)) == "f=test_long_values_are_cut"
    text = str(parameter("reduce", PPCA(n_components=123456789, random_state=0)))
    assert text == "reduce=PPCA(n_components=123456789..."
    assert "\n" not in str(parameter("a", "two\nlines"))
    assert len(described([tuple(parameter(f"p{i}", i) for i in range(50))])) <= 100
