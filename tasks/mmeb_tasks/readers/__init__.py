"""Readers: from a local data folder in the official layout to `Samples`. One function a record shape."""
