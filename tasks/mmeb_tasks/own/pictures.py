"""A folder of pictures: with captions, or with a sub-folder a class.

    captions.jsonl   {"file_name": "a.png", "text": "a caption"}, `text` a list for several captions a picture
    cats/1.png, dogs/2.png, …   a class is what its folder is called

Captions make two tasks, `<name>-t2i` (a caption finds its picture) and `<name>-i2t`; classes make one, in which a
picture finds the name of its class among all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from mmeb_harness import PICTURE_SUFFIXES, FolderFormat, Frames, Item, Samples, Task, is_data, shown
from mmeb_tasks.own.examples import write_pictures
from mmeb_tasks.own.items import ItemMaker
from mmeb_tasks.own.reading import Look, Read, check, load
from mmeb_tasks.own.rows import Problems, Row, file_of, rows_of
from mmeb_tasks.own.settings import FILE, Settings, name_of_folder, read_settings

#: As people call them, and as Hugging Face's imagefolder does.
_CAPTIONS = ("captions", "metadata")
FILE_COLUMN, TEXT_COLUMN = "file_name", "text"
_FEWEST_CLASSES = 2


def find_tasks(folder: Path) -> tuple[Task, ...] | None:
    """The folder's tasks; `None` if it has neither captions nor classes."""
    table = _captions_file(folder)
    if table is None and (len(_classes(folder)) < _FEWEST_CLASSES or _holds_data_sets(folder)):
        return None
    settings = read_settings(folder)
    name = settings.name or name_of_folder(folder)
    if table is None:
        return (_task(name, settings, partial(load, _read_classes, 0, folder), (FILE,), tuple(_classes(folder))),)
    return tuple(
        _task(f"{name}-{way}", settings, partial(load, _read_captions, place, folder), (table.name, FILE), ())
        for place, way in enumerate(("t2i", "i2t"))
    )


def _task(
    name: str,
    settings: Settings,
    load: Callable[[Path, Frames], Samples],
    annotations: tuple[str, ...],
    listed: tuple[str, ...],
) -> Task:
    return Task(name, "image", "own", settings.metric or "hit@1", load, annotations, listed=listed)


def _captions_file(folder: Path) -> Path | None:
    return next((path for name in _CAPTIONS if (path := file_of(folder, name))), None)


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Sub-folders that hold pictures, and those, both by name."""
    classes = {}
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and is_data(path.name)):
        if pictures := [path for path in sorted(inner.iterdir()) if _is_picture(path)]:
            classes[inner.name] = pictures
    return classes


def _holds_data_sets(folder: Path) -> bool:
    """Whether a sub-folder is a data set of its own, and thus no class."""
    names = ("queries", *_CAPTIONS)
    return any(file_of(inner, name) for inner in folder.iterdir() if inner.is_dir() for name in names)


def _files(folder: Path) -> list[Path]:
    """Files and folders in a folder that can be data."""
    return [folder / name for name in os.listdir(folder) if is_data(name)]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and is_data(path.name)


def _captioned(folder: Path, frames: Frames, problems: Problems, look: Look) -> list[tuple[Item, Sequence[str]]]:
    """Each picture once, as an item, and its captions."""
    table = _captions_file(folder)
    assert table is not None
    maker = ItemMaker(folder, frames, problems, look)
    pictures: dict[str, tuple[Item, list[str]]] = {}
    for row in rows_of(table, problems, (FILE_COLUMN, TEXT_COLUMN)):
        name, texts = row.values.get(FILE_COLUMN), _texts_of(row)
        if not isinstance(name, str) or not texts:
            what = f"{FILE_COLUMN} {shown(name)} and {TEXT_COLUMN} {shown(row.values.get(TEXT_COLUMN))}"
            problems.add(row.place, f"{what}; write the picture's path, and its caption or a list of captions")
            continue
        item_id = os.path.normpath(name)
        item = maker.item(Row(row.place, {"image": name}), item_id, "")
        if item is not None:
            pictures.setdefault(item_id, (item, []))[1].extend(texts)
    if not pictures and not problems.lines:
        problems.add(table.name, "holds no rows")
    return list(pictures.values())


def _texts_of(row: Row) -> list[str]:
    """The row's captions; none if one of them is no text."""
    value = row.values.get(TEXT_COLUMN)
    texts = value if isinstance(value, list) else [value]
    given = [text.strip() for text in texts if isinstance(text, str)]
    return given if len(given) == len(texts) and all(given) else []


def _read_captions(folder: Path, frames: Frames, problems: Problems, look: Look) -> tuple[Samples, ...]:
    captioned, settings = _captioned(folder, frames, problems, look), read_settings(folder)
    if problems.lines:
        return ()
    return _text_to_image(captioned, settings), _image_to_text(captioned, settings)


def _text_to_image(captioned: Sequence[tuple[Item, Sequence[str]]], settings: Settings) -> Samples:
    queries, gains = [], {}
    for picture, texts in captioned:
        for number, text in enumerate(dict.fromkeys(texts), start=1):
            query = Item(f"{picture.id}#{number}", text, instruction=settings.instruction)
            queries.append(query)
            gains[query.id] = {picture.id: 1.0}
    # One caption of two pictures finds either: it is one query with two answers.
    by_text: dict[str, Item] = {}
    for query in queries:
        first = by_text.setdefault(query.text, query)
        gains[first.id] |= gains[query.id]
    distinct = tuple(by_text.values())
    candidates = tuple(_with(picture, settings.candidate_instruction) for picture, _ in captioned)
    return Samples(distinct, candidates, {query.id: gains[query.id] for query in distinct})


def _image_to_text(captioned: Sequence[tuple[Item, Sequence[str]]], settings: Settings) -> Samples:
    texts = {text: Item(text, text, instruction=settings.candidate_instruction) for _, own in captioned for text in own}
    queries = tuple(_with(picture, settings.instruction) for picture, _ in captioned)
    return Samples(queries, tuple(texts.values()), {item.id: dict.fromkeys(own, 1.0) for item, own in captioned})


def _with(item: Item, instruction: str) -> Item:
    return Item(item.id, images=item.images, instruction=instruction)


def _read_classes(folder: Path, frames: Frames, problems: Problems, look: Look) -> tuple[Samples, ...]:
    settings, classes = read_settings(folder), _classes(folder)
    maker = ItemMaker(folder, frames, problems, look)
    names = [Item(name, _spoken(name), instruction=settings.candidate_instruction) for name in classes]
    _check_classes(folder, classes, problems)
    queries, gains = [], {}
    for name, paths in classes.items():
        for path in paths:
            place = path.relative_to(folder).as_posix()
            queries.append(maker.picture(place, place, path, settings.instruction))
            gains[place] = {name: 1.0}
    if problems.lines:
        return ()
    others = [path for name in classes for path in _files(folder / name) if not _is_picture(path) and path.is_file()]
    loose = [path for path in _files(folder) if _is_picture(path)]
    notes = {"files in class folders that are no pictures": len(others), "pictures in no class folder": len(loose)}
    counted = {what: count for what, count in notes.items() if count}
    return (Samples(tuple(queries), tuple(names), gains, notes=counted),)


def _spoken(name: str) -> str:
    """A class as it is called, of its folder's name."""
    return name.replace("_", " ").strip()


def _check_classes(folder: Path, classes: Mapping[str, Sequence[Path]], problems: Problems) -> None:
    """Note what would be left out unsaid, and classes that nobody can tell apart."""
    first: dict[str, str] = {}
    for name in classes:
        if first.setdefault(_spoken(name), name) != name:
            problems.add(f"{name}/", f"is called {_spoken(name)!r}, as {first[_spoken(name)]}/ is; rename one")
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and is_data(path.name)):
        for deeper in sorted(path for path in inner.iterdir() if path.is_dir() and is_data(path.name)):
            if any(map(_is_picture, deeper.iterdir())):
                place = deeper.relative_to(folder).as_posix()
                problems.add(f"{place}/", "holds pictures, but is no class's own folder; move them up, or out")


def _read(folder: Path, frames: Frames, problems: Problems, look: Look) -> tuple[Samples, ...]:
    read: Read = _read_classes if _captions_file(folder) is None else _read_captions
    return read(folder, frames, problems, look)


PICTURES = FolderFormat(
    "pictures",
    "captions.jsonl, or a sub-folder of pictures a class",
    find_tasks,
    partial(check, _read),
    write_pictures,
)
