"""What will run on a GPU, run without one: tensors with shapes and places but no memory, and a ledger of their bytes.

The models have the published sizes, the steps are the project's own code.
"""
