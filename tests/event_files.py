"""What `--track tensorboard` left in a run's folder, read by tensorboard itself."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Name → (step, value) of each point, in the order in which they were written."""
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    names = events.Tags()["tensors"]
    return {name: [(event.step, event.tensor_proto.float_val[0]) for event in events.Tensors(name)] for name in names}
