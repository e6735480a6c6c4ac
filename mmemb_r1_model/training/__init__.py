"""Training: stage 1 (joint) and stage 2 (adaptive control)."""
