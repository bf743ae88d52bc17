"""Boxes of a drawing, compared."""


def overlap(a, b, slack: float = 1e-6) -> bool:
    return abs(a.x - b.x) < (a.width + b.width) / 2 - slack and abs(a.y - b.y) < (a.height + b.height) / 2 - slack
