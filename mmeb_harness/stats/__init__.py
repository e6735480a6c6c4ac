"""What is certain of a difference: intervals, tests, the five policies of reasoning, places on a board."""
