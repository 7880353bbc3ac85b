"""
Benchmarks: `python -m benchmarks.speed` times this project, `python -m benchmarks.compare` compares its variants.

May import everything.
"""
