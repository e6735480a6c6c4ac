"""Being the driver of a Ray cluster, and how many actors fit on it."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mmeb_harness.core.errors import OptionError, ResultError
from mmeb_harness.core.registry import ModelSpec
from mmeb_harness.encode.local import shortly

#: Ray's own word for a cluster that is started for this run.
LOCAL = "local"
#: A cluster answers within so long.
KNOCK_SECONDS = 10.0
#: Of an actor without a GPU, where nobody says how many actors there should be.
CPUS_PER_ACTOR = 2

TOKEN_HINT = (
    "If it asks for a token (Ray 2.60 does where it finds one): RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
    "~/.ray/auth_token as on its head node"
)


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Be the driver of a cluster.

    Args:
        address: as `ray.init` takes it.

    Raises:
        OptionError: Ray isn't installed.
        ResultError: there is no such cluster, or it doesn't let this process in.
    """
    # Ray reads it when it is imported: nothing leaves the machine that isn't asked for.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise OptionError("--ray needs Ray: pip install 'mmeb-harness[ray]'") from error
    _knock(address)
    own: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    with _ends_as_before():
        try:
            ray.init(address=address, logging_level="CRITICAL", log_to_driver=False, **own)
        except Exception as error:  # its own, the system's, and a plain one where a node starts too slowly
            hint = "" if address == LOCAL else f". {TOKEN_HINT}"
            raise ResultError(f"--ray {address}: no connection to a Ray cluster: {shortly(error)}{hint}") from error
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _ends_as_before() -> Iterator[None]:
    """Ray leaves its answer to SIGTERM behind, by which this process would later stop a node that is gone."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """See whether anybody listens at an address: Ray itself tries a host that isn't there for minutes.

    Raises:
        ResultError: nobody listens.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # `auto`, `local`: Ray knows
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ResultError(f"--ray {address}: no connection to a Ray cluster: {error}") from error


@dataclass(frozen=True)
class Needs:
    """What an actor takes of its node.

    Attributes:
        gpus: one or none.
    """

    cpus: int
    gpus: int

    def __str__(self) -> str:
        return "a GPU each" if self.gpus else f"{self.cpus} CPU{'s' if self.cpus > 1 else ''} each"


def needs_of(spec: ModelSpec, resources: Mapping[str, float], workers: int | None) -> Needs:
    """A GPU, where the cluster has any or the model is told to use one; else CPUs.

    Args:
        resources: the cluster's, by Ray's names.
        workers: how many actors were asked for.

    Raises:
        OptionError: a GPU by its number.
    """
    device = str(spec.options.get("device") or spec.args.get("device") or "auto")
    if device.startswith("cuda:"):
        raise OptionError(f"--device {device}: an actor of --ray sees one GPU, whichever is free; use --device cuda")
    if device == "cuda" or (device == "auto" and resources.get("GPU", 0) >= 1):
        return Needs(cpus=1, gpus=1)
    return Needs(cpus=1 if workers else min(CPUS_PER_ACTOR, max(1, int(resources.get("CPU", 1)))), gpus=0)


def room_for(needs: Needs, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many actors fit; at least 1, which an autoscaler can find room for.

    Args:
        nodes: resources of each, by Ray's names.
    """
    of = ("GPU", needs.gpus) if needs.gpus else ("CPU", needs.cpus)
    return max(1, sum(int(node.get(of[0], 0)) // of[1] for node in nodes))
