"""Training pairs: what one is, and where the published sets and the synthetic suites are read from.

Reads what was downloaded, and fetches nothing. Imports `disk` alone; no torch.
"""
