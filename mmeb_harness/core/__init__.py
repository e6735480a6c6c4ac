"""What everything stands on: items, tasks, what a model is, the registry, errors, files. Imports no other room."""

from mmeb_harness.core.early import end_imports_well

end_imports_well()
