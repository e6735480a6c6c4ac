"""MMEmb-R1: an embedder that may write a rationale before it embeds. Model, inference and training, as one plugin.

What follows the paper (arXiv 2604.06156) and what is our own choice is said where it is made: no code or
weights of the paper are public.
"""
