"""Items to vectors by MMEmb-R1: the engine, the harness's embedder, the plain reference, rationales from a server.

Runs a model and trains none. Imports `decoding`, `model` and `vllm`; of the harness only the embedder knows.
"""
