"""`python -m mmeb_harness`: the same as `mmeb-eval`."""

from mmeb_harness.cli.commands import main

main()
