"""Stage 0b: which rationales help their pair, by a judge that sees both sides."""
