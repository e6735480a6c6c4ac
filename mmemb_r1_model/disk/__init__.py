"""Files that the model's stages share: configurations, JSON lines, atomic writes, hashes; and their errors.

Knows nothing of models or training; imports no other room.
"""
