"""
Quality and speed: metrics, evaluation, timing.

Modules here may import cyclegan.py and everything below it.
"""
