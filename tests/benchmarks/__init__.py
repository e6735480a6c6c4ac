"""What takes minutes, or depends on how fast the machine is: started by hand, as `python -m tests.benchmarks.NAME`."""
