"""Configuration files that say what nobody can mean."""

from __future__ import annotations

from tests.faults.fault import Command, Fault, World


def _config(text: bytes) -> Fault:
    def make(world: World) -> list[Command]:
        (world.folder / "run.yaml").write_bytes(text)
        return [("mmeb-eval", "run", "--config", "run.yaml", "--tasks", "DocVQA")]

    return Fault("config", repr(text), make, says=(r"run\.yaml",))


FAULTS = (_config(b"model: random\nworkers: many\n"),)
