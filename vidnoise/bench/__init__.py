"""Benchmarks of ``vidnoise bench``: the speed of the network, its theoretical limits, and comparisons over time."""
