"""Files that hold a still picture: their names, one or in sequence, and what they tell beside the samples."""
