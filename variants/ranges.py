"""
The ranges of values of --range_A and --range_B.
"""


def parse_range(text):
    """--range_A, "LOW HIGH" -> (low, high); None -> None. Raises ValueError."""
    if text is None:
        return None
    try:
        low, high = map(float, str(text).split())
    except ValueError:
        raise ValueError(f"{text} is not two numbers, LOW HIGH")
    if not -1e30 < low < high < 1e30:  # false for NaN, too
        raise ValueError(f"{text}: LOW must be less than HIGH")
    return low, high
