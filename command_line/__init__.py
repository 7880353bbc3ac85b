"""
What all commands share: options and their help, one-line errors, progress.

May import utils alone.
"""
