"""Reports on videos: streams and noise, comparisons, contact sheets."""
