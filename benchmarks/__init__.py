"""Benchmarks that anyone can run: ratios measured within one run, on the machine at hand.

A benchmark is a module of this package with a function `main(argv)`. The first line of its docstring says, after a
colon, what it measures. `python -m benchmarks` finds, lists and runs all such modules.
"""
