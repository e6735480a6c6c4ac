"""From Python, and what the command line is built on: options become a run, and a run becomes tables and frames."""
