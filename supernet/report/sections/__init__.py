"""The parts of a run's page, a file each: `shown(run)` returns what there is to show, or None where runs of that kind have no such thing.

What should be there and is not raises `document.Missing`, whose message stands in its place.
"""
