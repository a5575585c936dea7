"""Searches and cross-validation whose candidates share what is provably the same work."""
