"""Sweeps on a cluster of others, by Ray Jobs: what travels there, and asking after it."""
