"""What is certain of a difference: intervals, tests, policies of when to reason, places on a board."""
