"""Baseline models, one file a family; each reaches the harness through its entry point."""
