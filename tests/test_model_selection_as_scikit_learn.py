"""scikit-learn's own tests of its searches, with ours in the place of theirs.

They run in a process of their own, because their module is changed, and its warnings are not
errors.
"""



# Run by pytest as a plugin: as their module is imported, its names become ours.
PLUGIN = """
import pytest
import skae
from sklearn.model_selection import _search
from sklearn import model_selection

def pytest_configure(config):
    for name in ("GridSearchCV", "RandomizedSearchCV"):
        setattr(model_selection, name, getattr(skae, name))
    model_selection.cross_validate = skae.cross_validate
"""
