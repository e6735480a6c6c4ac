"""A vLLM server with our checkpoint: where it is, how it is asked and answers, rollouts by adapters that it is given.

Writes what others decide to ask for: rationales of an evaluation (`embed`), rollouts of stage 2 (`training`). Takes and
gives token ids; knows items, prompts and HTTP, neither torch nor what the tokens are for.
"""
