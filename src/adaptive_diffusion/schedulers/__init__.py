"""Schedulers of the project's own: where to evaluate the model, composed with the solvers of `baseline`."""
