"""Files that hold a still picture: their names, single or in sequence, and their metadata."""
