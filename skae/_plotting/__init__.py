"""Displays: what is drawn of fitted models; matplotlib is loaded when something is drawn."""
