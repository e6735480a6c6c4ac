"""The 53 text tasks of the mini suite: queries, corpora and labels, each family in its own files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mmeb_tasks.mini.questions import difficulties, motion_words
from mmeb_tasks.mini.thoughts import THOUGHTS, Thought, direction_words, named, number_words, other_way
from mmeb_tasks.mini.visdoc_tasks import LANGUAGES, ROW_NAMES, WORDS
from mmeb_tasks.mini.world import (
    COLOURS,
    DIRECTIONS,
    EVERY_THING,
    NUMBERS,
    POSITIONS,
    SHAPES,
    Rng,
    Thing,
    random_thing,
    shuffled,
)
from mmeb_tasks.mini.write import Difficulty, QueryLabel, Streams, SuiteWriter
from mmeb_tasks.text import ROWS, Family, TextRow, files_of

#: Things of a corpus that holds several texts of each.
FEW_THINGS = 16
LONG_TEXTS = 32
#: Sentences of long texts, in turn; of six words each.
LENGTHS = (12, 40, 120, 400)
FILLER = "grey over grey and that is it"
#: subset of InfoSearch → how its texts say in what manner they are written, and the manners.
MANNERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "Audience-v1": ("for {}", ("children", "students", "experts")),
    "Clarity-v1": ("in {} words", ("plain", "careful", "vague")),
    "Format-v1": ("as a {}", ("list", "table", "letter")),
    "Language-v1": ("in {}", LANGUAGES),
    "Length-v1": ("in {} words", ("few", "many")),
    "Source-v1": ("from the {}", ROW_NAMES),
}


@dataclass(frozen=True, slots=True)
class Document:
    """A text of a corpus; `title` may be ""."""

    id: str
    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """A query, its grades by document, 0 for some that do not fit, and what stands before it."""

    text: str
    grades: Mapping[str, int]
    kind: Difficulty
    rationale: str
    answer: str
    instruction: str = ""
    changed_instruction: str = ""


@dataclass(frozen=True, slots=True)
class Collection:
    """A text task, drawn."""

    documents: Sequence[Document]
    queries: Sequence[Query]


def write_text_task(name: str, streams: Streams, writer: SuiteWriter, num_queries: int) -> None:
    """Write one of the 53 text tasks."""
    index, row = next((index, row) for index, row in enumerate(ROWS) if row.name == name)
    draw, write, first = _FAMILIES[row.family]
    thought = THOUGHTS[index % len(THOUGHTS)]
    collection = draw(row, streams(name), num_queries, thought)
    query_ids = [first.format(number) for number in range(num_queries)]
    write(row, query_ids, collection, writer)
    labels = zip(query_ids, collection.queries, strict=True)
    writer.labels(name, [QueryLabel(query_id, q.kind, q.rationale, q.answer) for query_id, q in labels])


# --- what is drawn ---


def _about_things(copies: int, row: TextRow, rng: Rng, num_queries: int, thought: Thought) -> Collection:
    """Every thing in `copies` texts: all of them are relevant to whoever asks for the thing."""
    texts = shuffled(rng, [(thing, form) for thing in EVERY_THING for form in range(copies)])
    documents = [Document(f"d{number}", _passage(rng, thing, form)) for number, (thing, form) in enumerate(texts)]
    queries = []
    for kind in difficulties(rng, num_queries):
        target = random_thing(rng)
        text, rationale = named(rng, target, kind, thought)
        grades = {document.id: 1 for document, (thing, _) in zip(documents, texts, strict=True) if thing == target}
        queries.append(Query(text, grades, kind, rationale, target.words))
    return Collection(documents, queries)


def _passage(rng: Rng, thing: Thing, form: int) -> str:
    """One of two forms of a text about a thing."""
    if form:
        return motion_words(thing, int(rng.integers(4)))
    first, second = (NUMBERS[int(number)] for number in rng.integers(0, 8, 2))
    return f"a {thing.words} over grey {first} and {second}"


def _narrowed(row: TextRow, rng: Rng, num_queries: int, thought: Thought) -> Collection:
    """A few things in all directions; an instruction says which direction fits, and which fits in part."""
    things = _some_things(rng, FEW_THINGS)
    facts = shuffled(rng, [(thing, direction) for thing in things for direction in range(4)])
    ids = {fact: f"d{number}" for number, fact in enumerate(facts)}
    documents = [Document(ids[fact], motion_words(*fact), f"page {fact[0].words}") for fact in facts]
    queries = []
    for kind in difficulties(rng, num_queries):
        thing, best = things[int(rng.integers(len(things)))], int(rng.integers(4))
        fair = 2 - best // 2 * 2 + int(rng.integers(2))  # across, so that the other way than either is wrong
        grades = {ids[thing, direction]: {best: 2, fair: 1}.get(direction, 0) for direction in range(4)}
        instruction = _fitting(best, fair, kind)
        changed = _fitting(other_way(best), other_way(fair), kind)
        words = motion_words(thing, best)
        queries.append(Query(thing.words, grades, kind, words, words, instruction, changed))
    return Collection(documents, queries)


def _fitting(best: int, fair: int, kind: Difficulty) -> str:
    best_words, fair_words = direction_words(best, kind), direction_words(fair, kind)
    return f"it fits moving {best_words} and in part moving {fair_words}"


def _in_manners(row: TextRow, rng: Rng, num_queries: int, thought: Thought) -> Collection:
    """A few things in all manners: each text about the thing is relevant, the one in the right manner doubly."""
    phrase, manners = MANNERS[row.subset]
    things = _some_things(rng, FEW_THINGS)
    texts = shuffled(rng, [(thing, manner) for thing in things for manner in manners])
    ids = {text: f"d{number}" for number, text in enumerate(texts)}
    documents = [Document(ids[text], _in_manner(row.subset, phrase, *text)) for text in texts]
    queries = []
    for kind in difficulties(rng, num_queries):
        thing = things[int(rng.integers(len(things)))]
        right, other = (manners[int(index)] for index in rng.permutation(len(manners))[:2])
        text, rationale = named(rng, thing, kind, thought)
        grades = {ids[thing, manner]: 2 if manner == right else 1 for manner in manners}
        wishes = (f"a text {phrase.format(manner)}" for manner in (right, other))
        queries.append(Query(text, grades, kind, rationale, thing.words, *wishes))
    return Collection(documents, queries)


def _in_manner(subset: str, phrase: str, thing: Thing, manner: str) -> str:
    if subset == "Language-v1":
        colours, shapes = WORDS[manner]
        return f"{colours[thing.colour]} {shapes[thing.shape]}"
    if manner == "many":
        return f"{thing.words}. {FILLER}. {FILLER}. {thing.words}. {FILLER}"
    return f"{thing.words} {phrase.format(manner)}"


def _hidden(row: TextRow, rng: Rng, num_queries: int, thought: Thought) -> Collection:
    """Long texts, each with a thing of its own: said once among filler, or three times among much that is said."""
    is_filler = row.subset in ("needle", "passkey")
    things = _some_things(rng, LONG_TEXTS)
    documents = []
    for number, thing in enumerate(things):
        sentences = [FILLER if is_filler else _half_a_thing(rng) for _ in range(LENGTHS[number % len(LENGTHS)])]
        for place in rng.integers(0, len(sentences), 1 if is_filler else 3):
            sentences[int(place)] = f"the largest is a {thing.words}"
        documents.append(Document(f"d{number}", ". ".join(sentences)))
    queries = []
    for kind in difficulties(rng, num_queries):
        number = int(rng.integers(len(things)))
        text, rationale = named(rng, things[number], kind, thought)
        queries.append(Query(text, {f"d{number}": 1}, kind, rationale, things[number].words))
    return Collection(documents, queries)


def _half_a_thing(rng: Rng) -> str:
    """A sentence with a colour or a shape, never both."""
    thing = random_thing(rng)
    if rng.random() < 0.5:
        return f"then {COLOURS[thing.colour]} was grey"
    return f"a {SHAPES[thing.shape]} went {DIRECTIONS[int(rng.integers(4))]}"


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a text with several conditions says."""

    thing: Thing
    count: int
    direction: int
    place: int

    @property
    def words(self) -> str:
        """All that it says, in words."""
        return f"{NUMBERS[self.count]} {motion_words(self.thing, self.direction)} {POSITIONS[self.place]}"


def _of_conditions(row: TextRow, rng: Rng, num_queries: int, thought: Thought) -> Collection:
    """Texts that say four things, each wanted one beside three that differ in one of them."""
    wanted = [_random_facts(rng) for _ in range(num_queries)]
    all_facts = {facts: None for target in wanted for facts in (target, *_near_misses(rng, target))}
    ids = {facts: f"d{number}" for number, facts in enumerate(shuffled(rng, list(all_facts)))}
    documents = [
        Document(
            document_id, f"{NUMBERS[facts.count]} {motion_words(facts.thing, facts.direction)}", POSITIONS[facts.place]
        )
        for facts, document_id in ids.items()
    ]
    queries = []
    for target, kind in zip(wanted, difficulties(rng, num_queries), strict=True):
        conditions = (
            target.thing.words,
            f"number {number_words(rng, target.count, kind)}",
            f"moving {direction_words(target.direction, kind)}",
            POSITIONS[target.place],
        )
        queries.append(Query(", ".join(conditions), {ids[target]: 1}, kind, target.words, target.words))
    return Collection(documents, queries)


def _random_facts(rng: Rng) -> Facts:
    return Facts(random_thing(rng), *(int(rng.integers(low, high)) for low, high in ((2, 8), (0, 4), (0, 4))))


def _near_misses(rng: Rng, facts: Facts) -> tuple[Facts, ...]:
    """Another number, the other way, and another place."""
    count = 2 + (facts.count - 2 + int(rng.integers(1, 6))) % 6
    place = (facts.place + int(rng.integers(1, 4))) % 4
    return (
        Facts(facts.thing, count, facts.direction, facts.place),
        Facts(facts.thing, facts.count, other_way(facts.direction), facts.place),
        Facts(facts.thing, facts.count, facts.direction, place),
    )


def _some_things(rng: Rng, count: int) -> list[Thing]:
    return shuffled(rng, EVERY_THING)[:count]


# --- the files ---


def _write_bright(row: TextRow, query_ids: Sequence[str], collection: Collection, writer: SuiteWriter) -> None:
    """Tables; the labels stand with the queries. What is excluded stays in the pool, as officially."""
    files = files_of(row)
    queries = [
        {
            "query": query.text,
            "reasoning": query.rationale,
            "id": query_id,
            "excluded_ids": ["N/A"] if query.kind == "easy" else [_page(collection.documents[number].id)],
            "gold_ids_long": [f"long/{query_id}.txt"],
            "gold_ids": [_page(document_id) for document_id in query.grades],
            "gold_answer": query.answer,
        }
        for number, (query_id, query) in enumerate(zip(query_ids, collection.queries, strict=True))
    ]
    writer.parquet(files.queries, queries)
    writer.parquet(files.corpus, [{"id": _page(d.id), "content": d.text} for d in collection.documents])


def _page(document_id: str) -> str:
    return f"pages/{document_id}.txt"


def _write_nano(row: TextRow, query_ids: Sequence[str], collection: Collection, writer: SuiteWriter) -> None:
    """Tables; only that of NanoDBPedia has scores."""
    files = files_of(row)
    writer.parquet(files.queries, _rows(query_ids, collection, "_id", "text"))
    writer.parquet(files.corpus, [{"_id": d.id, "text": d.text} for d in collection.documents])
    qrels = _qrels(query_ids, collection, "query-id", "corpus-id", "score")
    if row.subset != "NanoDBPedia":
        qrels = [{key: qrel[key] for key in ("query-id", "corpus-id")} for qrel in qrels]
    writer.parquet(str(files.qrels), qrels)


def _write_lines(
    query_columns: tuple[str, str],
    document_columns: tuple[str, str],
    qrels_columns: tuple[str, str, str],
    row: TextRow,
    query_ids: Sequence[str],
    collection: Collection,
    writer: SuiteWriter,
) -> None:
    """JSON lines, in the columns of the family."""
    files = files_of(row)
    queries = _rows(query_ids, collection, *query_columns)
    if row.family in ("FollowIR", "InfoSearch"):
        instructions = [
            {"instruction_og": query.instruction, "instruction_changed": query.changed_instruction}
            for query in collection.queries
        ]
        queries = [query | instruction for query, instruction in zip(queries, instructions, strict=True)]
    document_id, text = document_columns
    writer.lines(files.queries, queries)
    writer.lines(files.corpus, [{document_id: d.id, "title": d.title, text: d.text} for d in collection.documents])
    writer.lines(str(files.qrels), _qrels(query_ids, collection, *qrels_columns))


def _rows(query_ids: Sequence[str], collection: Collection, id_column: str, text: str) -> list[dict[str, Any]]:
    return [{id_column: i, text: query.text} for i, query in zip(query_ids, collection.queries, strict=True)]


def _qrels(
    query_ids: Sequence[str], collection: Collection, query_column: str, document_column: str, score: str
) -> list[dict[str, Any]]:
    return [
        {query_column: query_id, document_column: document_id, score: grade}
        for query_id, query in zip(query_ids, collection.queries, strict=True)
        for document_id, grade in query.grades.items()
    ]


Draw = Callable[[TextRow, Rng, int, Thought], Collection]
Write = Callable[[TextRow, Sequence[str], Collection, SuiteWriter], None]

_BEIR = ("_id", "text")
#: family → what is drawn, how it is written, and the form of its query ids.
_FAMILIES: Mapping[Family, tuple[Draw, Write, str]] = {
    "BRIGHT": (partial(_about_things, 2), _write_bright, "{}"),
    "R2MED": (
        partial(_about_things, 2),
        partial(_write_lines, ("id", "text"), ("id", "text"), ("q_id", "p_id", "score")),
        "q{}",
    ),
    "NanoBEIR": (partial(_about_things, 1), _write_nano, "q{}"),
    "FollowIR": (_narrowed, partial(_write_lines, _BEIR, _BEIR, ("query_id", "corpus_id", "score")), "30{}"),
    "InfoSearch": (_in_manners, partial(_write_lines, _BEIR, _BEIR, ("query_id", "corpus_id", "score")), "30{}"),
    "LongEmbed": (
        _hidden,
        partial(_write_lines, ("qid", "text"), ("doc_id", "text"), ("qid", "doc_id", "label")),
        "q{}",
    ),
    "MultiConIR": (
        _of_conditions,
        partial(_write_lines, ("query_id", "text"), _BEIR, ("query_id", "corpus_id", "label")),
        "q{}",
    ),
}
