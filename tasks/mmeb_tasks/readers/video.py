"""The 18 video tasks: classification, question answering, retrieval, moment retrieval. All read saved frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from mmeb_harness import Column, Frames, Item, Layout, Row, Samples, Source, Table
from mmeb_tasks.readers.builder import SamplesBuilder, clean_instruction
from mmeb_tasks.readers.image import text_candidate
from mmeb_tasks.readers.media import MediaFolder, sample_frames
from mmeb_tasks.readers.tables import read_rows

VideoReader = Literal[
    "video_classification",
    "ssv2",
    "mvbench",
    "videomme",
    "nextqa",
    "egoschema",
    "activitynetqa",
    "msrvtt",
    "msvd",
    "didemo",
    "vatex",
    "youcook2",
    "moment_retrieval",
    "momentseeker",
]

SHORT_CLIPS = "short clips"
MORE_FRAMES = "clips shown with more frames than asked"
LABELS = Path(__file__).resolve().parent.parent / "labels"


@dataclass(frozen=True)
class VideoLayout:
    """What the readers must know of one video task.

    Attributes:
        tables: one, but for MVBench's twenty.
        frame_root: below the data folder.
        instruction: of queries, as the official parser spells it (outer spaces kept).
        target_instruction: of video candidates.
        labels: file of class names that every query ranks.
        max_rows: only the first rows are used.
        all_positives: in moment retrieval every positive folder is an answer, as in MMEB-V3; else the last one is.
    """

    reader: VideoReader
    tables: tuple[Table, ...]
    frame_root: str
    instruction: str
    target_instruction: str = ""
    labels: str | None = None
    max_rows: int | None = None
    all_positives: bool = False


@dataclass
class _Context:
    """What every row of one task shares."""

    layout: VideoLayout
    media: MediaFolder
    builder: SamplesBuilder
    frames: Frames
    labels: frozenset[str] = frozenset()

    def video(self, folder: str) -> tuple[Path, ...]:
        """Frames of a whole video, as many as are shown of one."""
        return self._sampled(folder, self.frames.video)

    def clip(self, folder: str) -> tuple[Path, ...]:
        """Frames of a clip in moment retrieval, as many as are shown of one."""
        return self._sampled(folder, self.frames.clip)

    def saved(self, folder: str) -> tuple[Path, ...]:
        """All saved frames, however many, as the official parser of MomentSeeker does; more than asked are counted."""
        frames = self.media.frames(f"{self.layout.frame_root}/{folder}")
        self.builder.notes[MORE_FRAMES] += len(frames) > self.frames.clip
        return frames

    def _sampled(self, folder: str, n: int) -> tuple[Path, ...]:
        """Fewer than asked for are counted.

        The official parsers use a short clip's frames unpadded, but fail on a retrieval clip of fewer than 8;
        here both are used.
        """
        frames = self.media.frames(f"{self.layout.frame_root}/{folder}")
        self.builder.notes[SHORT_CLIPS] += len(frames) < n
        return sample_frames(frames, n, self.frames.short) if frames else ()

    def query(self, query_id: str, text: str, frames: tuple[Path, ...] = (), layout: Layout = "basic") -> Item:
        instruction = self.layout.instruction
        return Item(
            query_id,
            text=text,
            frames=frames,
            instruction=clean_instruction(instruction),
            source=Source(layout, instruction),
        )

    def video_candidate(self, candidate_id: str, frames: Callable[[], tuple[Path, ...]]) -> str:
        instruction = self.layout.target_instruction

        def make() -> Item:
            source = Source("basic", instruction)
            return Item(candidate_id, frames=frames(), instruction=instruction, source=source)

        return self.builder.candidate(candidate_id, make)


def read_video_task(layout: VideoLayout, data: Path, frames: Frames) -> Samples:
    """Read the queries and candidates of a video task."""
    labels = _label_names(layout)
    context = _Context(layout, MediaFolder(data), SamplesBuilder(), frames, frozenset(labels))
    add_row, columns = _READERS[layout.reader]
    rows = [(table, row) for table in layout.tables for row in read_rows(data, table, columns)]
    for number, (table, row) in enumerate(rows[: layout.max_rows]):
        add_row(context, str(number), row, table)
    for label in labels:
        context.builder.candidate(label, partial(text_candidate, label))
    context.media.refuse_missing()
    return context.builder.build(pooled=layout.reader not in _GLOBAL)


def _label_names(layout: VideoLayout) -> list[str]:
    return (LABELS / layout.labels).read_text(encoding="utf-8").splitlines() if layout.labels else []


AddRow = Callable[[_Context, str, Row, Table], None]


VIDEO_ID, VIDEO, VIDEO_ID_2 = Column.key("video_id"), Column.key("video"), Column.key("videoID")
VIDEO_NAME, VIDEO_INDEX, VIDEO_PATH = Column.key("video_name"), Column.key("video_idx"), Column.key("video_path")
LABEL, PHRASES = Column.text("pos_text"), Column.texts("neg_text")
QUESTION, ANSWER, ANSWER_PLACE = Column.text("question"), Column.text("answer"), Column.whole_number("answer")
CHOICES, LETTERED, LETTERED_2 = Column.texts("candidates"), Column.texts("options"), Column.texts("option")
FIVE_CHOICES = tuple(Column.text(f"a{index}") for index in range(5))
CLIP_ID, CAPTION, ENGLISH_CAPTION = Column.key("id"), Column.first_text("caption"), Column.first_text("enCap")
SENTENCE, DESCRIPTION, SHOWN = Column.text("sentence"), Column.text("query"), Column.optional_text("input_frames")
POSITIVES = Column.field_texts("positive_frames", "output_path")
NEGATIVES = Column.field_texts("negative_frames", "output_path", least=0)


def _classification(context: _Context, query_id: str, row: Row, table: Table) -> None:
    label = row[LABEL]
    if label not in context.labels:  # ranked beside the others, as officially
        context.builder.notes["labels that are no class"] += 1
    item = context.query(query_id, "", context.video(row[VIDEO_ID]))
    context.builder.query(item, _texts(context, [label]), {label: 1.0})


def _ssv2(context: _Context, query_id: str, row: Row, table: Table) -> None:
    if row[LABEL] not in row[PHRASES]:
        raise row.unfit(LABEL, f"one of the {len(row[PHRASES])} texts of its {PHRASES.name}")
    item = context.query(query_id, "", context.video(row[VIDEO_ID]))
    context.builder.query(item, _texts(context, row[PHRASES]), {row[LABEL]: 1.0})


def _texts(context: _Context, texts: Sequence[str]) -> list[str]:
    return [context.builder.candidate(text, partial(text_candidate, text)) for text in texts]


def _ask(
    context: _Context, query_id: str, folder: str, body: str, options: Sequence[tuple[str, str]], answer: str
) -> None:
    """Add a question; `options` are (id, text) and `answer` is an id."""
    item = context.query(query_id, body, context.video(folder), "video_question")
    own = [context.builder.candidate(one, partial(text_candidate, text, one)) for one, text in options]
    context.builder.notes["blank candidates"] += sum(not text.strip() for _, text in options)
    if answer not in own:
        context.builder.incomplete(query_id, "answers that are no option")
    context.builder.query(item, own, {answer: 1.0})


def lettered(options: Sequence[str]) -> list[str]:
    """Options with their letters: `(A) first`, `(B) second`, …"""
    return [f"({chr(ord('A') + index)}) {option}" for index, option in enumerate(options)]


def _with_options(question: str, options: Sequence[str]) -> str:
    return "\n".join([question, "Options:", *lettered(options)]).rstrip()


def _mvbench(context: _Context, query_id: str, row: Row, table: Table) -> None:
    # Candidates carry their letter, here and nowhere else. Time bounds of rows are ignored, as officially.
    options = lettered(row[CHOICES])
    places = [index for index, option in enumerate(row[CHOICES]) if option == row[ANSWER]]
    # The official code takes the last option equal to the answer, and "@", the letter before A, if none is.
    letter = chr(ord("A") + places[-1]) if places else "@"
    folder = f"{table.config}/{row[VIDEO]}"
    body = _with_options(row[QUESTION], row[CHOICES])
    _ask(context, query_id, folder, body, [(option, option) for option in options], f"({letter}) {row[ANSWER]}")


def _nextqa(context: _Context, query_id: str, row: Row, table: Table) -> None:
    options = [row[choice] for choice in FIVE_CHOICES]
    body = _with_options(row[QUESTION], options)
    _ask(context, query_id, row[VIDEO], body, [(option, option) for option in options], _right(row, options))


def _right(row: Row, options: Sequence[str]) -> str:
    """The option at the answer's place."""
    if not 0 <= row[ANSWER_PLACE] < len(options):
        raise row.unfit(ANSWER_PLACE, f"the place of one of {len(options)} options, from 0")
    return options[row[ANSWER_PLACE]]


def option_text(option: str) -> str:
    """The words of a lettered option: from the first period-space on, without periods and spaces around.

    Without a period-space only the last character is left: the official code slices at find() == -1.
    """
    return option[option.find(". ") :].strip(". ")


def _videomme(context: _Context, query_id: str, row: Row, table: Table) -> None:
    options = row[LETTERED]
    body = row[QUESTION] + "\n" + "\n".join(options)
    right = dict(zip("ABCD", options, strict=False)).get(row[ANSWER])
    if right is None:
        raise row.unfit(ANSWER, f"the letter of one of its {len(options)} options")
    _ask(context, query_id, row[VIDEO_ID_2], body, [(option, option_text(option)) for option in options], right)


def _egoschema(context: _Context, query_id: str, row: Row, table: Table) -> None:
    options = row[LETTERED_2]
    body = row[QUESTION] + " ".join(options)  # no separator after the question, as officially
    choices = [(option, option_text(option)) for option in options]
    _ask(context, query_id, row[VIDEO_INDEX], body, choices, _right(row, options))


def _activitynetqa(context: _Context, query_id: str, row: Row, table: Table) -> None:
    if row[ANSWER] not in ("yes", "no"):
        raise row.unfit(ANSWER, "'yes' or 'no'")
    body = f"{row[QUESTION]}? (A) yes; (B) no."
    _ask(context, query_id, f"v_{row[VIDEO_NAME]}", body, [("yes", "yes"), ("no", "no")], row[ANSWER])


def _retrieval(context: _Context, query_id: str, video: str, caption: str) -> None:
    """One row is one query and one video; of several captions the first is used."""
    own = context.video_candidate(video, partial(context.video, video))
    context.builder.query(context.query(query_id, caption), [own], {own: 1.0})


def _msrvtt(context: _Context, query_id: str, row: Row, table: Table) -> None:
    _retrieval(context, query_id, row[VIDEO_ID], row[CAPTION])


def _didemo(context: _Context, query_id: str, row: Row, table: Table) -> None:
    _retrieval(context, query_id, PurePosixPath(row[VIDEO]).stem, row[CAPTION])


def _vatex(context: _Context, query_id: str, row: Row, table: Table) -> None:
    _retrieval(context, query_id, row[VIDEO_ID_2], row[ENGLISH_CAPTION])


def _youcook2(context: _Context, query_id: str, row: Row, table: Table) -> None:
    _retrieval(context, query_id, row[CLIP_ID], row[SENTENCE])


def _moment_retrieval(context: _Context, query_id: str, row: Row, table: Table) -> None:
    """Truth and candidates are the sub-folders of the video's frame folder.

    The official candidate order is that of the directory listing, which differs between file systems; here
    it is the sorted order, so that ties fall the same everywhere.
    A video without one is refused; the official code silently keeps the previous row's answer.
    """
    root, video = context.layout.frame_root, PurePosixPath(row[VIDEO_PATH]).stem
    clips = [name for name in context.media.subfolders(f"{root}/{video}") if name != "query"]
    positives = [name for name in clips if name.startswith("positive")]
    whole_video = context.video(f"{video}/query")  # first: it notes a video whose folder is missing altogether
    if not positives:
        context.media.refuse_missing()
        raise row.unfit(VIDEO_PATH, f"a video with a positive* folder in {root}/{video}")
    own = [
        context.video_candidate(f"{root}/{video}/{name}", partial(context.clip, f"{video}/{name}")) for name in clips
    ]
    item = context.query(query_id, row[DESCRIPTION], whole_video)
    answers = positives if context.layout.all_positives else positives[-1:]
    context.builder.query(item, own, {f"{root}/{video}/{name}": 1.0 for name in answers})


#: By the suffix of the row's input.
MOMENTSEEKER_INSTRUCTIONS = {
    "text": "Find the clip that corresponds to the given text:",
    "image": "Select the video clip that aligns with the given text and image:",
    "video": "Find the clip that corresponds to the given sentence and video segment:",
}


def _momentseeker(context: _Context, query_id: str, row: Row, table: Table) -> None:
    """Queries of three kinds; every saved frame is used, and every positive clip is relevant."""
    positives = [_clip_folder(path) for path in row[POSITIVES]]
    negatives = [_clip_folder(path) for path in row[NEGATIVES]]
    root = context.layout.frame_root
    clips = positives + negatives
    own = [context.video_candidate(f"{root}/{folder}", partial(context.saved, folder)) for folder in clips]
    item = _momentseeker_query(context, query_id, row)
    context.builder.query(item, own, dict.fromkeys(own[: len(positives)], 1.0))


def _momentseeker_query(context: _Context, query_id: str, row: Row) -> Item:
    source = row[SHOWN]
    kind = "video" if source.endswith(".mp4") else "image" if source.endswith(".jpg") else "text"
    instruction = MOMENTSEEKER_INSTRUCTIONS[kind]
    return Item(
        query_id,
        text=row[DESCRIPTION],
        images=(context.media.file(f"{context.layout.frame_root}/query_{source}"),) if kind == "image" else (),
        frames=context.saved(_clip_folder(source)) if kind == "video" else (),
        instruction=instruction,
        source=Source("basic", instruction),
    )


def _clip_folder(path: str) -> str:
    return "video_frames/" + path.replace("/", "_").split(".mp4")[0]


_READERS: dict[VideoReader, tuple[AddRow, tuple[Column[Any], ...]]] = {
    "video_classification": (_classification, (VIDEO_ID, LABEL)),
    "ssv2": (_ssv2, (VIDEO_ID, LABEL, PHRASES)),
    "mvbench": (_mvbench, (QUESTION, VIDEO, CHOICES, ANSWER)),
    "videomme": (_videomme, (QUESTION, VIDEO_ID_2, LETTERED, ANSWER)),
    "nextqa": (_nextqa, (VIDEO, QUESTION, ANSWER_PLACE, *FIVE_CHOICES)),
    "egoschema": (_egoschema, (VIDEO_INDEX, QUESTION, LETTERED_2, ANSWER_PLACE)),
    "activitynetqa": (_activitynetqa, (VIDEO_NAME, QUESTION, ANSWER)),
    "msrvtt": (_msrvtt, (VIDEO_ID, CAPTION)),
    "msvd": (_msrvtt, (VIDEO_ID, CAPTION)),
    "didemo": (_didemo, (VIDEO, CAPTION)),
    "vatex": (_vatex, (VIDEO_ID_2, ENGLISH_CAPTION)),
    "youcook2": (_youcook2, (CLIP_ID, SENTENCE)),
    "moment_retrieval": (_moment_retrieval, (DESCRIPTION, VIDEO_PATH)),
    "momentseeker": (_momentseeker, (DESCRIPTION, SHOWN, POSITIVES, NEGATIVES)),
}

_GLOBAL = ("video_classification", "msrvtt", "msvd", "didemo", "vatex", "youcook2")
