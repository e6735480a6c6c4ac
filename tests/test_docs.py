"""README and docs: the examples as an installed package, figures as the kept runs say, links, size, generated parts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mmeb_tasks import TASKS
from mmeb_tasks.mini import SUITE
from PIL import Image

from mmeb_harness.results.files import load_run_result, load_task_result
from mmeb_harness.show.tables import bounds
from mmemb_r1_model.embed.embedder import load
from tests.test_architecture import MAY_IMPORT

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
EVERYTHING = "\n".join((README, *PAGES.values()))
LARGEST_README = 9 * 1024
EVAL = Path(sys.executable).parent / "mmeb-eval"


def example(name: str) -> str:
    block = re.search(rf"<!-- example: {re.escape(name)} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert block, f"README has no example {name}"
    return block.group(1)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples as a package, installed by pip into a folder of its own."""
    source, site = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("site")
    for name in ("zoo.py", "letters.py", "pyproject.toml"):
        (source / name).write_text(example(name))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(site), str(source)], check=True)
    return site


def call(installed: Path, folder: Path, *arguments: str) -> str:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(installed), "COLUMNS": "150"}
    done = subprocess.run(
        [str(EVAL), *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_example_is_under_20_lines() -> None:
    for name in ("zoo.py", "letters.py"):
        assert len([line for line in example(name).splitlines() if line.strip()]) < 20


@pytest.mark.slow
def test_the_task_and_the_model_are_found_and_run(installed: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for index, name in enumerate(("cat", "dog", "owl")):
        Image.new("RGB", (32, 32), (80 * index, 40, 200)).save(data / f"{name}.png")
    assert "letters" in call(installed, tmp_path, "models")
    assert "Zoo" in call(installed, tmp_path, "tasks")
    assert "all checks passed" not in call_check(installed, tmp_path)  # letters can't see: the check says so
    printed = call(
        installed, tmp_path, "run", "--model", "letters", "--tasks", "Zoo", "--data", "data", "--output", "out",
        "--model-arg", "alphabet=acdglotw",
    )  # fmt: skip
    assert "Zoo" in printed
    result = load_task_result(tmp_path / "out" / "tasks" / "Zoo.json")
    assert (result.num_queries, result.num_candidates, result.chance) == (3, 3, pytest.approx(1 / 3))
    assert result.random_ties_score == pytest.approx(1 / 3)  # equal vectors for all pictures: nothing but ties


def call_check(installed: Path, folder: Path) -> str:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(installed)}
    done = subprocess.run([str(EVAL), "check", "letters"], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "FAIL  different inputs" in done.stdout
    return done.stdout


def test_a_plugin_needs_no_change_here(installed: Path, tmp_path: Path) -> None:
    """Without its folder on the path nothing is left of it."""
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run([str(EVAL), "models"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "letters" not in done.stdout


def test_the_readme_is_short_and_shows_a_plugin_early() -> None:
    assert len(README.encode()) <= LARGEST_README
    assert README[: README.index("<!-- example: zoo.py -->")].count("\n") < 100


def test_every_command_exists() -> None:
    for program in ("mmeb-eval", "mmemb-r1"):
        shown = subprocess.run([str(EVAL.with_name(program)), "--help"], capture_output=True, text=True, check=True)
        assert not re.search(r"^  .*\.\.\.$", shown.stdout, re.MULTILINE), "a sentence that is cut off"
        for command in set(re.findall(rf"\b{program} ([a-z][\w-]+)", EVERYTHING)):
            assert re.search(rf"^  {command}\b", shown.stdout, re.MULTILINE), f"{program} {command}"


MARKDOWN = [
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "baselines/*.md",
        "tasks/*.md",
        "mmemb_r1_model/**/*.md",
        "mmeb_harness/**/*.md",
        "results/**/*.md",
    )
    for path in sorted(ROOT.glob(pattern))
]


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\((?!https?://)([^)\s]+)\)", path.read_text()):
        target, _, anchor = link.partition("#")
        other = path.parent / target if target else path
        assert other.exists(), link
        assert not anchor or anchor in anchors(other), link


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_the_readme_leads_to_every_page(page: str) -> None:
    assert f"(docs/{page}.md)" in README


def test_files_that_the_pages_name_are_there() -> None:
    named = set(re.findall(r"`((?:mmeb_harness|mmemb_r1_model|tests|tasks|baselines|results)/[\w./-]+)`", EVERYTHING))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_architecture_shows_the_table_that_is_held() -> None:
    tables = re.findall(r"^\| room of .+\n(?:\|.+\n)+", PAGES["architecture"], re.MULTILINE)
    for table, rooms in zip(tables, MAY_IMPORT.values(), strict=True):
        rows = re.findall(r"^\| (`[^|]+`) \| [^|]+ \| ([^|]+) \|$", table, re.MULTILINE)
        shown = {room: set(below.split(", ")) for names, below in rows for room in re.findall(r"`([\w.]+)`", names)}
        held = {room: set(below.split()) or {"-"} for room, below in rooms.items() if room != "__main__"}
        assert {room: {"all"} if shown.get(room) == {"all"} else below for room, below in held.items()} == shown


def test_what_a_run_prints_is_what_the_kept_runs_say() -> None:
    block = re.search(r"<!-- output of: mmeb-eval run --model mmemb_r1 -->\n```text\n(.*?)```", PAGES["run"], re.DOTALL)
    assert block
    run = load_run_result(ROOT / "results" / "mini" / "mmemb_r1.json")
    rows = {line.split("│")[0].strip(): line for line in block.group(1).splitlines() if "│" in line}
    for aggregate in run.aggregates:
        assert aggregate.score is not None
        assert [f"{100 * aggregate.score:.1f}", str(aggregate.tasks)] == [
            rows[aggregate.name].split("│")[column].strip() for column in (2, 1)
        ]
    excerpt = re.search(r"```text\n(.*?)```", README, re.DOTALL)
    assert excerpt
    assert excerpt.group(1) in block.group(1)
    for name in ("never", "always"):
        score = load_run_result(ROOT / "results" / "mini" / f"mmemb_r1-{name}.json").aggregates[0].score
        assert score is not None
        assert f"| `mmemb_r1 --reasoning {name}` | {100 * score:.1f} |" in PAGES["evidence"]


def test_what_compares_the_kept_runs_is_of_these_runs() -> None:
    """`make results` was run as a whole, and the page says what came of it."""
    kept = ROOT / "results" / "mini"
    overall = {path.stem: load_run_result(path).aggregates[0].score for path in kept.glob("*.json")}
    board = (kept / "leaderboard.md").read_text(encoding="utf-8").replace("\\", "")
    modes = (kept / "modes.txt").read_text(encoding="utf-8")
    policies = {line.split("│")[0].strip(): line.split("│") for line in modes.splitlines() if line.count("│") == 8}
    for name, score in overall.items():
        assert score is not None
        assert re.search(rf"\| mini-{name} \| \**{100 * score:.1f}\** \|", board), name
        mode = {"mmemb_r1-never": "never", "mmemb_r1-always": "always", "mmemb_r1": "adaptive"}.get(name)
        if mode:
            assert policies[mode][1].strip() == f"{100 * score:.1f}"
    gained = {policy: policies[policy][7].strip().removeprefix("+") for policy in ("always", "random")}
    assert f"scores {gained['always']} points more than always, {gained['random']} more" in " ".join(
        PAGES["compare"].split()
    )
    adaptive = [cell.strip() for cell in policies["adaptive"]]
    page = " ".join(PAGES["compare"].split())
    fixed, probe = ([cell.strip() for cell in policies[name]] for name in ("fixed", "probe"))
    beside = f"adaptive {adaptive[1]} with {adaptive[3]} %, a difference of {fixed[7]}"
    assert f"fixed scores {fixed[1]} with {fixed[3]} % reasoning, {beside}; " in page
    assert f"the probe scores {probe[1]} with {probe[3]} %, a difference of {probe[7]}." in page
    forecast = re.search(r"Brier score ([\d.]+) \(of the base rate ([\d.]+)\), ECE ([\d.]+) ", modes)
    assert forecast
    brier, of_rate, error = forecast.groups()
    assert f"a Brier score of {brier} (base rate {of_rate}) and an ECE of {error}." in page
    closed = re.search(r"head-room closed.*: ([\d.]+ %) (\[.*\])\.", modes)
    assert closed
    assert f"and closes {closed[1]} {closed[2]} of the head-room" in PAGES["compare"]


def test_the_kept_run_is_of_the_embedded_checkpoint() -> None:
    """Scores go stale with the checkpoint, the suite or the tasks: then run again and keep the new ones."""
    run = load_run_result(ROOT / "results" / "mini" / "mmemb_r1.json")
    assert run.model_revision == load().info.revision
    assert run.data_revision.startswith(f"mini-{SUITE.version}-test-0-")
    assert run.tasks == tuple(task.name for task in TASKS)


def test_the_pages_show_what_the_study_says() -> None:
    shown = set(PAGES["evidence"].splitlines())
    numbers = json.loads((ROOT / "results" / "miniworld" / "study.json").read_text())
    for run, title in (("gate-only", "gate alone"), ("base", "gate and rationales")):
        for task in ("text", "graded", "image", "page", "video"):
            own = numbers["policies"][f"{run}/adaptive"][f"miniworld-{task}"]
            policies = ("never", "always", "adaptive", "oracle")
            cells = [f"{100 * own[policy]['all']['value']:.1f}" for policy in policies]
            cells.append(f"{100 * numbers['goals'][run][f'miniworld-{task}']['head-room closed']['value']:.0f} %")
            cells.append(f"{100 * own['adaptive']['share']['value']:.0f} %")
            cells.append(f"{own['adaptive']['tokens']:.1f} / {own['always']['tokens']:.1f}")
            assert f"| {title} | {task} | {' | '.join(cells)} |" in shown
    assert {line for line in README.splitlines() if line.startswith("| gate ")} <= shown


def test_the_evidence_says_what_a_gate_tells_apart_within_a_task() -> None:
    shown = set(PAGES["evidence"].splitlines())
    numbers = json.loads((ROOT / "results" / "mixed" / "study.json").read_text())
    for run, title in (("gate-only", "gate alone"), ("base", "gate and rationales")):
        for task, goals in numbers["goals"][run].items():
            own, gain = numbers["policies"][f"{run}/adaptive"][task], goals["adaptive - fixed"]
            policies = ("never", "always", "fixed", "adaptive", "oracle")
            cells = [f"{100 * own[policy]['all']['value']:.1f}" for policy in policies]
            cells.append(f"{100 * gain['value']:+.1f} {bounds(*gain['queries'])}")
            cells.append(f"{numbers['within'][run][task]['mean']:.2f}")
            cells.append(f"{100 * own['adaptive']['share']['value']:.0f} %")
            assert f"| {title} | {task.removeprefix('mixed-')} | {' | '.join(cells)} |" in shown


def test_the_evidence_says_what_each_part_is_worth() -> None:
    numbers = json.loads((ROOT / "results" / "ablations" / "study.json").read_text())
    variants = {name: tasks["miniworld-text"] for name, tasks in numbers["variants"].items()}
    score = {name: f"{100 * variant['score_adaptive']['value']:.1f}" for name, variant in variants.items()}
    text = " ".join(PAGES["evidence"].split("## What each part is worth\n\n")[1].split("\n\n")[0].split())
    for start, name in (
        ("means over all three, base ", "base"),
        ("always reasons: ", "no-stage-2"),
        ("the adaptive reward too: ", "no-adaptive"),
        ("chosen at random (", "random"),
        ("sampled (", "sampled"),
        ("the wrong worker's alone (", "wrong-alone"),
        ("loss on rationales (", "no-generation"),
    ):
        assert f"{start}{score[name]}" in text, name


def test_the_page_says_what_the_bench_measured() -> None:
    bench = json.loads((ROOT / "results" / "bench" / "bench.json").read_text())
    for mode in bench["modes"]:
        ratios = {ratio["reference"]: ratio["times"] for ratio in mode["ratios"]}
        seconds = {side["side"]: f"{side['seconds']['median']:.1f} s" for side in mode["sides"]}
        cells = [mode["mode"], seconds["ours"], seconds["plain loop"], times(ratios["plain loop"])]
        fixed = "fixed batches"
        cells += [seconds[fixed], times(ratios[fixed])] if fixed in ratios else []
        assert f"| {' | '.join(cells)} |" in PAGES["speed"]
    growth = json.loads((ROOT / "results" / "bench" / "growth.json").read_text())
    text = " ".join(PAGES["speed"].split("How the time grows")[1].split("\n\n")[0].split())
    for curve in growth["curves"]:
        assert f"to the {curve['fit']['exponent']['median']:.2f}" in text, curve["what"]


def times(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.1f} [{ratio['low']:.1f}, {ratio['high']:.1f}]"
