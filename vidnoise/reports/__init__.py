"""What is told of videos: their streams and noise, comparisons, contact sheets."""
