"""
Image and video files, read and written.

May import utils alone.
"""
