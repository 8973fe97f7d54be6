"""Damaged inputs of every kind, from fixed seeds. ``make fuzz`` runs tens of thousands, the tests a few hundred."""
