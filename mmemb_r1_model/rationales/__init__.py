"""Stage 0a: heterogeneous workers write rationales, each of one side of a pair alone.

Leaves rationales.jsonl and asks nobody twice. Imports `data` and `model`; no judge and no training.
"""
