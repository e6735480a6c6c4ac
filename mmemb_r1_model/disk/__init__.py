"""Files the model's stages share: configurations, JSON lines, atomic writes, hashes, errors."""
