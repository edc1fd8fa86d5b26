"""Records of runs: MLflow, the jobs of a sweep, and the provenance of results."""
