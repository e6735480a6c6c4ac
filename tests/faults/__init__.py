"""Hostile inputs, a row each: `test_faults.py` meets all of them in `make test`, `python -m tests.faults` as real
processes, with kills at random moments (`make fuzz`).
"""
