"""Trainable torch modules, one for each model, and their architectures."""
