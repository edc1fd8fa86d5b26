"""Benchmarks that anyone can run: ratios measured within one run, on the machine at hand.

A benchmark is a module of this package with a function `main(argv)`; the first line of its docstring says what it
measures, after a colon. Nothing else is needed for `python -m benchmarks` to list and run it.
"""
