"""Expectations and bounds under trained modules."""
