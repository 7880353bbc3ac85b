"""
What can be typed for the options that variants.schedules reads: values that change during training.
"""

import argparse


def sizes_by_epoch(text):
    """Checks the value of --progressive, such as '128:50,256:150', and returns it unchanged."""
    for stage in text.split(","):
        size, _, epochs = stage.partition(":")
        is_number = size.isdecimal() and epochs.isdecimal() and len(size) < 6 and len(epochs) < 10
        if not (is_number and 32 <= int(size) <= 16384 and int(epochs) >= 1):
            raise argparse.ArgumentTypeError(f"{text}: not of the form SIZE:EPOCHS,SIZE:EPOCHS, such as 128:50,256:150")
    return text


def ratio_by_epoch(text):
    """Checks the value of --ratio_A, '0.5' or '0.5:1', and returns it unchanged."""
    try:
        values = [float(value) for value in text.split(":")]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not all(0.01 <= value <= 100 for value in values):
        raise argparse.ArgumentTypeError(f"{text}: neither a number from 0.01 to 100 nor two of them, such as 0.5:1")
    return text
