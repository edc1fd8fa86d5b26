"""Quality metrics: distances between sets of features, and the networks that give the features."""
