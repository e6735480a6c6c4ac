"""Who may import whom, held by walking the imports; and what starts without torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import pytest

import mmeb_harness
from tests.rooms import PACKAGES as LARGE_PACKAGES
from tests.rooms import ROOT, arrows_of, circles_of, file_of, imports_in

PACKAGES = {
    "mmeb_harness": ROOT / "mmeb_harness",
    "mmeb_tasks": ROOT / "tasks" / "mmeb_tasks",
    "mmeb_baselines": ROOT / "baselines" / "mmeb_baselines",
    "mmemb_r1_model": ROOT / "mmemb_r1_model",
}
PLUGINS = [name for name in PACKAGES if name != "mmeb_harness"]
#: What one plugin may import of another: there is one engine for both embedders that write rationales. It knows torch
#: and transformers alone.
DECODING = "mmemb_r1_model.decoding"
#: Modules of the harness that are public besides its names: what an adapter is built of, and what a report is: a study
#: of a plugin's own must not have a second bootstrap, nor write a percentage otherwise.
PUBLIC_MODULES = ("mmeb_harness.adapter.", "mmeb_harness.stats.", "mmeb_harness.show.tables")
#: Libraries that take their time, and that a command imports only when it comes to use them.
HEAVY = {"torch", "transformers", "pandas", "scipy", "faiss", "pyarrow", "pydantic", "rich", "matplotlib", "datasets"}
#: A run of an early release, whose tables have to be looked into, and what that needs.
RUN = ROOT / "tests" / "golden" / "release_0_1" / "run"
READS_RUNS = {"pydantic", "rich", "pyarrow", "pandas"}
ALLOWED_BESIDE = {"mmeb_baselines": {DECODING}}
#: The only modules of the model that know the harness: items and files come in through them. Losses know tensors.
R1_MODULES_THAT_KNOW_THE_HARNESS = {
    "model/checkpoint.py",
    "model/items.py",
    "model/settings.py",
    "disk/config.py",
    "disk/errors.py",
    "disk/files.py",
    "disk/trackers.py",
}
#: `embed` gives vectors to the harness: how one came about is the harness's own record, all the way.
R1_PACKAGES_THAT_KNOW_THE_HARNESS = {"data", "embed", "study"}
#: Room → rooms it may import. The page and the pictures are rooms inside of `show`.
MAY_IMPORT = {
    "mmeb_harness": {
        "core": "",
        "adapter": "core",
        "data": "core",
        "encode": "core",
        "ranking": "core",
        "store": "core",
        "results": "core ranking",
        "run": "core data encode ranking results store",
        "stats": "core results",
        "exchange": "core ranking results stats",
        "spread": "core encode results run store",
        "show": "core data results stats",
        "show.pictures": "core data results stats show",
        "show.page": "core data results stats show",
        "bench": "adapter core data encode ranking run show store",
        "api": "core data encode exchange results run show show.page spread stats store",
        "cli": "api core data encode store results stats exchange spread show show.page show.pictures bench",
        "__main__": "cli",
    },
    "mmemb_r1_model": {
        "disk": "",
        "decoding": "",
        "model": "disk",
        "data": "disk",
        "rationales": "data disk model",
        "vllm": "data disk model",
        "embed": "decoding disk model vllm",
        "training": "data decoding disk embed model vllm",
        "selection": "data decoding disk model training",
        "pipeline": "data disk model rationales selection training vllm",
        "rehearsal": "data decoding disk embed model selection training",
        "study": "data disk embed pipeline rationales selection training",
        "estimate": "data disk model pipeline rationales training",
        "fits": "decoding disk model pipeline rationales rehearsal training",
        "cli": "disk estimate fits model pipeline study",
    },
}


TOP_LEVEL = {
    *(".ci", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "pyproject.toml"),
    *("baselines", "docs", "mmeb_harness", "mmemb_r1_model", "results", "tasks", "tests"),
}


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """(module, imported name) of every import in a file, inside functions too."""
    for node in imports_in(path):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        else:
            assert node.level == 0, f"{path}: relative import"
            yield from ((node.module or "", alias.name) for alias in node.names)


def files(package: str) -> list[Path]:
    found = sorted(PACKAGES[package].rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("path", files("mmeb_harness"), ids=lambda path: path.name)
def test_the_harness_imports_neither_torch_nor_the_plugins(path: Path) -> None:
    forbidden = {"torch", "transformers", *PLUGINS}
    assert not [module for module, _ in imports(path) if module.split(".")[0] in forbidden]


@pytest.mark.parametrize("plugin", PLUGINS)
def test_plugins_import_only_what_is_public_of_the_harness_and_no_other_plugin(plugin: str) -> None:
    for path in files(plugin):
        for module, name in imports(path):
            top = module.split(".")[0]
            if module not in ALLOWED_BESIDE.get(plugin, set()):
                assert top not in set(PLUGINS) - {plugin}, f"{path} imports {module}"
            if top == "mmeb_harness" and not module.startswith(PUBLIC_MODULES):
                assert module == "mmeb_harness", f"{path} imports {module}"
                assert name in mmeb_harness.__all__, f"{path} imports {name}"


def test_only_the_edge_of_the_model_knows_the_harness() -> None:
    root = PACKAGES["mmemb_r1_model"]
    knowing = {
        path.relative_to(root)
        for path in files("mmemb_r1_model")
        if any(module == "mmeb_harness" for module, _ in imports(path))
    }
    others = {path for path in knowing if path.parts[0] not in R1_PACKAGES_THAT_KNOW_THE_HARNESS}
    assert {str(path) for path in others} <= R1_MODULES_THAT_KNOW_THE_HARNESS


def test_the_decoding_engine_knows_neither_the_harness_nor_the_model_around_it() -> None:
    for path in (PACKAGES["mmemb_r1_model"] / "decoding").rglob("*.py"):
        for module, _ in imports(path):
            assert module.split(".")[0] not in PACKAGES or module.startswith(DECODING), f"{path} imports {module}"


def test_the_decoding_engine_brings_nothing_of_ours_with_it() -> None:
    """Imported as if nothing of ours had been."""
    with patch.dict(sys.modules):
        for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
            del sys.modules[name]
        import_module(DECODING)
        ours = {name for name in sys.modules if name.split(".")[0] in PACKAGES}
    assert DECODING in ours
    assert all(name == "mmemb_r1_model" or name.startswith(DECODING) for name in ours), ours


@pytest.mark.parametrize("package", LARGE_PACKAGES)
def test_every_room_imports_only_rooms_below_it(package: str) -> None:
    """Also no late or type-only import; see docs/architecture.md for the table and its reasons."""
    arrows = arrows_of(package)
    allowed = {room: set(below.split()) for room, below in MAY_IMPORT[package].items()}
    assert set(arrows) == set(allowed), "a room that the table doesn't have, or one that is gone"
    strange = [
        imports for room in arrows for other in set(arrows[room]) - allowed[room] for imports in arrows[room][other]
    ]
    assert strange == []
    assert circles_of({room: {other: set() for other in below} for room, below in allowed.items()}) == []


@pytest.mark.parametrize("package", LARGE_PACKAGES)
def test_no_files_import_each_other_in_a_circle(package: str) -> None:
    """Inside of a room neither; nor late or for types."""
    assert circles_of(arrows_of(package, place_of=file_of)) == []


def test_all_is_what_is_public() -> None:
    public = {*mmeb_harness._LATE, *(name for name in vars(mmeb_harness) if not name.startswith("_"))}
    public -= {"Any", "TYPE_CHECKING", "importlib"}
    submodules = {path.stem for path in PACKAGES["mmeb_harness"].glob("*") if path.suffix == ".py" or path.is_dir()}
    assert public - submodules == set(mmeb_harness.__all__) - {"__version__"}


@pytest.mark.parametrize(
    ("command", "most", "others"),
    [
        (["--help"], 40, set()),
        (["run", "--help"], 40, set()),
        (["tasks"], 60, set()),
        (["models"], 110, set()),
        (["show", str(RUN)], 60, READS_RUNS),
        (["leaderboard", str(RUN)], 95, READS_RUNS),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_cli_starts_with_few_modules(command: list[str], most: int, others: set[str]) -> None:
    """Each of ours takes a millisecond, those of large libraries hundreds: what one imports at its head, all wait for.

    Args:
        most: of our own modules.
        others: libraries that it needs.
    """
    code = (
        "import sys\nfrom mmeb_harness.cli.commands import cli\n"
        f"cli({command!r}, standalone_mode=False)\n"
        f"print(*sorted(name for name in sys.modules if name.split('.')[0] in {set(PACKAGES) | HEAVY!r}), "
        "sep='\\n', file=sys.stderr)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stderr.split()
    assert {name for name in told if name in HEAVY} <= others
    assert sum(name.split(".")[0] in PACKAGES for name in told) <= most


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an unpacked sdist holds no repository")
def test_the_top_level_is_what_it_should_be() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split("/")[0] for line in tracked.splitlines()} == TOP_LEVEL


def public_docstrings(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    """(name, docstring) of public functions and classes, and of what is public in these classes."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, ast.get_docstring(node) or ""
            if isinstance(node, ast.ClassDef):
                yield from public_docstrings(node.body)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_public_docstring_is_a_sentence(package: str) -> None:
    for path in files(package):
        for name, docstring in public_docstrings(ast.parse(path.read_text()).body):
            assert not docstring or len(docstring.split()) > 3, f"{path}: {name}: {docstring!r}"


def test_loops_name_what_they_go_through() -> None:
    texts = [path.read_text() for package in PACKAGES for path in files(package)]
    assert sum(text.count("for one in ") for text in texts) <= 40
    assert sum(text.count(" found = ") for text in texts) <= 40
