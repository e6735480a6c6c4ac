"""Rationales written by a vLLM server that serves the same checkpoint: the form of a request, and the client."""
