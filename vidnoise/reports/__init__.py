"""Reports on videos: their streams and noise, comparisons, contact sheets."""
