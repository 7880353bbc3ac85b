"""
How good and how fast: measures of quality, evaluation, timing.

May import everything below cyclegan.py, and cyclegan.py.
"""
