"""`mmeb-eval` with hardly a pause before a hub that failed is asked again."""

from mmeb_harness.cli.commands import main
from mmeb_harness.data import hub

hub.FIRST_PAUSE_SECONDS = 0.01

if __name__ == "__main__":
    main()
