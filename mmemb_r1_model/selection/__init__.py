"""Stage 0b: which rationales help their pair, by a judge that sees both sides.

Reads what `rationales` wrote and writes what `training` draws from. Imports `data`, `model` and `training`, since a
judge is trained by the same loop; not `rationales`: their files stand between.
"""
