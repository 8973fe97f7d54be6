"""Denoising sessions: the state of a stream, its strength, cuts, fields and grain."""
