"""The order of evaluations, and how the time of shared work is divided."""

from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from helpers import network
from skae import VAE
from skae._search.pieces import Piece
from skae._search.same_work import Keys
from skae._search.units import _rounds


def rounds(candidates, splits):
    steps = dict(enumerate(candidates))
    return list(_rounds(steps, dict(enumerate(splits)), Keys()))


def vae(size):
    return network(VAE, n_components=size)


def test_the_first_of_those_with_a_network_in_common_goes_ahead():
    candidates = [[vae(1), SVC(C=1)], [vae(1), SVC(C=2)], [vae(2), SVC(C=1)], [vae(1), SVC(C=1)]]
    assert rounds(candidates, [0, 0, 0, 1]) == [[0, 2, 3], [1]]


def test_networks_one_behind_the_other():
    both = [vae(3), vae(1), SVC()]
    candidates = [
        both,
        [vae(3), vae(2), SVC()],
        [vae(3), vae(1), SVC(C=2)],
        [vae(3), vae(2), SVC(C=2)],
    ]
    assert rounds(candidates, [0] * 4) == [[0], [1, 2], [3]]


def test_a_network_that_is_last_waits_for_nobody():
    assert rounds([[StandardScaler(), vae(1)]] * 3, [0, 0, 0]) == [[0, 1, 2]]


def test_who_measured_the_time_of_shared_work_gives_it_to_all():
    piece = Piece("step", "StandardScaler", users=[0, 1, 2])
    piece.seconds["fit_time"], piece.payer["fit_time"] = 3.0, 1
    results = {user: {"fit_time": time, "score_time": 1.0} for user, time in enumerate([1, 5, 1])}
    piece.divide(results)
    assert [result["fit_time"] for result in results.values()] == [2.0, 3.0, 2.0]
    assert [result["score_time"] for result in results.values()] == [1.0, 1.0, 1.0]
