"""Searches and cross-validation that do the common work of candidates only once."""
