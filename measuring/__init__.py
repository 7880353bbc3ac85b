"""
Quality and speed: metrics, evaluation, timing.

May import cyclegan.py and everything below it.
"""
