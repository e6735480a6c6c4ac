"""Items to vectors by MMEmb-R1: the engine, the embedder of the harness, the plain reference, served rationales."""
