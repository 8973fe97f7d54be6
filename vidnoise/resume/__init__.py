"""Runs that go on where an earlier one ended: progress in segments, and what the two must have in common."""
