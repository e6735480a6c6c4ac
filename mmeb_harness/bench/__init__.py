"""What encoding and ranking take on this machine, beside plain ways of doing the same; and how it grows.

Only ratios of one process travel: seconds are of one machine on one day.
"""
