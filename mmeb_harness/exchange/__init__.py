"""A run in the forms that other people's tools and boards read."""
