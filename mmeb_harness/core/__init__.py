"""What everything stands on: items, tasks, what a model is, the registry, errors, files. Imports nothing of ours."""
