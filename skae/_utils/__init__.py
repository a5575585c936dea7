"""Helpers that all modules use: inputs, memory, versions, interruptions. None loads torch."""
