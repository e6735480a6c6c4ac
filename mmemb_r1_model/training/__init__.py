"""Training: stage 1 (joint) and stage 2 (adaptive control), their data, losses, rollouts and processes.

Takes pairs, rationales and a checkpoint, and leaves a checkpoint. Imports `data`, `embed`, `model` and `vllm`; how
rationales were written or selected is not its business.
"""
