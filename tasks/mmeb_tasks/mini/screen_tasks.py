"""The eight GUI tasks of the mini suite: screens with buttons, clicks that take a button away, and trajectories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mmeb_tasks.agent import SCREEN_ROWS, ScreenRow, ScreenSplit
from mmeb_tasks.mini.questions import difficulties
from mmeb_tasks.mini.world import POSITIONS, Picture, Rng, Scene, draw_scene, random_scene, shuffled
from mmeb_tasks.mini.write import Difficulty, QueryLabel, Streams, SuiteWriter

TOKEN = "<|image_1|>"
BUTTONS = 3
#: Texts and the screens that stand in them, in order.
Shown: TypeAlias = tuple[str, Sequence[Scene]]


@dataclass(frozen=True, slots=True)
class Session:
    """A first screen and the buttons that are clicked one after another, by their number on it."""

    screen: Scene
    clicks: tuple[int, ...]

    @property
    def screens(self) -> list[Scene]:
        """What is seen before each click, and at the end."""
        return [_without(self.screen, self.clicks[:done]) for done in range(len(self.clicks) + 1)]

    @property
    def actions(self) -> list[str]:
        """The clicks, by where on the screen."""
        return [f"click {POSITIONS[self.screen.cells[click]]}" for click in self.clicks]

    @property
    def names(self) -> list[str]:
        """The clicked buttons in words."""
        return [self.screen.things[click].words for click in self.clicks]

    @property
    def left(self) -> str:
        """The buttons at the end, in words."""
        return " and ".join(thing.words for thing in self.screens[-1].things)


def _without(screen: Scene, clicked: Sequence[int]) -> Scene:
    left = [index for index in range(len(screen.things)) if index not in clicked]
    return Scene(tuple(screen.things[i] for i in left), tuple(screen.cells[i] for i in left))


@dataclass
class ScreenTask:
    """One GUI task in the making."""

    row: ScreenRow
    rng: Rng
    writer: SuiteWriter
    num_pictures: int = 0

    def paths(self, screens: Sequence[Scene]) -> str:
        """Draw the screens; their paths as the tables have them."""
        return str([self._draw(draw_scene(screen, self.rng)) for screen in screens])

    def _draw(self, picture: Picture) -> str:
        self.num_pictures += 1
        path = f"{self.row.screens.lower()}/{self.row.split}_{self.num_pictures:05d}.png"
        self.writer.picture(f"{self.row.image_root}/{path}", picture)
        return path


def write_screen_task(name: str, streams: Streams, writer: SuiteWriter, num_queries: int) -> None:
    """Write one of the eight GUI tasks: each row brings its answer; the corpus holds all and what nearly fits."""
    row = next(row for row in SCREEN_ROWS if row.name == name)
    task = ScreenTask(row, streams(name), writer)
    ask, answer = _SPLITS[row.split]
    queries: list[dict[str, Any]] = []
    corpus: list[dict[str, Any]] = []
    labels: list[QueryLabel] = []
    for number, kind in enumerate(difficulties(task.rng, num_queries)):
        session = _random_session(task.rng, kind, row.split)
        answers = [_texts_and_paths(task, answer(shown)) for shown in (session, *_near_misses(session))]
        ids = [f"{row.split}-{number}-{place}" for place in range(len(answers))]
        text, paths = _texts_and_paths(task, ask(session, kind))
        queries.append(
            {
                "qry_id": str(number),
                "qry_text": text,
                "qry_image_path": paths,
                "pos_text": answers[0][0],
                "pos_image_path": answers[0][1],
                "pos_id": ids[0],
                "retrieval_type": row.split,
            }
        )
        corpus += [
            {"cand_text": text, "cand_image_path": paths, "cand_id": candidate_id}
            for candidate_id, (text, paths) in zip(ids, answers, strict=True)
        ]
        rationale = f"{' then '.join(session.names) or 'wait'} leaves {session.left}"
        labels.append(QueryLabel(str(number), kind, rationale, session.left))
    writer.parquet(row.table("queries").replace("*", "00000-of-00001"), queries)
    writer.parquet(row.table("corpus").replace("*", "00000-of-00001"), shuffled(task.rng, corpus))
    writer.labels(name, labels)


def _random_session(rng: Rng, kind: Difficulty, split: ScreenSplit) -> Session:
    """One click if easy, where only the next screen is asked for none; hard: one more, on what stands across."""
    screen = random_scene(rng, BUTTONS)
    clicks = (0, 1)  # the second of a screen's things stands across from the first
    return Session(screen, clicks[: (0 if split == "s2s" else 1) + (kind == "hard")])


def _near_misses(session: Session) -> list[Session]:
    """The same screen with other clicks."""
    others = ((), (2,), (1,)) if len(session.clicks) < 2 else ((0,), (0, 2))
    return [Session(session.screen, clicks) for clicks in others if clicks != session.clicks][:2]


def _texts_and_paths(task: ScreenTask, shown: Shown) -> tuple[str, str]:
    text, screens = shown
    return text, task.paths(screens)


def _goal(session: Session, kind: Difficulty) -> Shown:
    """What to do; a hard goal doesn't name the second button."""
    return f"click {session.names[0]}" + (" then the one across" if kind == "hard" else ""), []


def _outcome(session: Session, kind: Difficulty) -> Shown:
    """What the screen shows in the end; a hard goal says what it showed before, and what was clicked."""
    if kind == "easy":
        return f"a screen with {session.left}", []
    all_buttons = " and ".join(thing.words for thing in session.screen.things)
    return f"a screen with {all_buttons} after click {' then '.join(session.names)}", []


def _next_screen(session: Session, kind: Difficulty) -> Shown:
    action = session.actions[-1] if session.actions else "wait"
    return f"Observation: {TOKEN}\nAction: {action}", [session.screen]


def _so_far(session: Session, kind: Difficulty) -> Shown:
    """All but the last screen."""
    return _steps(session), session.screens[:-1]


def _trajectory(session: Session) -> Shown:
    """All screens and clicks, in order."""
    number = len(session.screens)
    return "\n".join(filter(None, (_steps(session), f"Observation {number}: {TOKEN}"))), session.screens


def _steps(session: Session) -> str:
    numbered = enumerate(session.actions, 1)
    return "\n".join(f"Observation {number}: {TOKEN}\nAction {number}: {action}" for number, action in numbered)


def _last_screen(session: Session) -> Shown:
    return f"Observation: {TOKEN}", session.screens[-1:]


Ask: TypeAlias = Callable[[Session, Difficulty], Shown]
Answer: TypeAlias = Callable[[Session], Shown]

_SPLITS: Mapping[ScreenSplit, tuple[Ask, Answer]] = {
    "q2t": (_goal, _trajectory),
    "q2s": (_outcome, _last_screen),
    "s2s": (_next_screen, _last_screen),
    "t2s": (_so_far, _last_screen),
}
