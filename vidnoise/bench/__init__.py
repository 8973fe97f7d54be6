"""How fast it is, and how fast it could be: what ``vidnoise bench`` measures, counts, writes and compares."""
