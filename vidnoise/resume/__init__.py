"""Resuming interrupted runs: progress in segments, and settings that must match."""
