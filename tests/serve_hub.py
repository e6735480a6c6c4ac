"""`python -m tests.serve_hub`: the mini suites on a hub on loopback, to try `mmeb-eval data` without a network.

Prints the endpoint (for HF_ENDPOINT) and serves until Ctrl-C; then what was asked of it.
"""

from __future__ import annotations

import signal
import time

import click
from mmeb_tasks.mini import SUITE_V3

from mmeb_harness.data.folder import ensure_suite
from tests.hub import Hub, serve
from tests.published import publish
from tests.published_v3 import publish_bundle


@click.command()
@click.option("--breaks", default=0, show_default=True, help="How often each large file's download breaks off.")
def main(breaks: int) -> None:
    """Serve the mini suite of MMEB-V3, which holds that of V2, as the hub would."""
    hub = Hub()
    suite = ensure_suite(SUITE_V3, 0)
    publish(suite, hub)
    publish_bundle(suite, hub)
    for repo, commit in hub.heads.items():
        for path, content in hub.repos[repo][commit].items():
            hub.breaks[path] = breaks if len(content) > 100_000 else 0
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts background jobs with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    with serve(hub) as url:
        click.echo(f"export HF_ENDPOINT={url}")
        try:
            while True:
                time.sleep(0.2)
        except KeyboardInterrupt:
            click.echo(
                f"{sum(hub.downloads.values())} downloads of {len(hub.served)} distinct paths, "
                f"{sum(hub.served.values()):,} bytes sent, {hub.broken} broken off, {hub.resumed} continued"
            )


if __name__ == "__main__":
    main()
