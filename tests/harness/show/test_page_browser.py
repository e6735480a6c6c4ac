"""The page in a real browser, from a file: sort, filter, drill down, by keyboard, and with texts that mean harm."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="selenium is not installed (pip install 'mmeb-harness[dev]')")

from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from mmeb_harness.results.published import find_published, load_published
from mmeb_harness.show.contests import load_entry, published_entry
from mmeb_harness.show.leaderboard import leaderboards
from mmeb_harness.show.page.board import board_page
from mmeb_harness.show.page.collect import open_runs, summary_of
from mmeb_harness.show.page.make import make_page
from mmeb_harness.show.page.queries import collect_task
from mmeb_harness.show.page.render import write_page
from mmeb_harness.show.page.values import InlinePicture, TaskRow
from mmeb_harness.show.tables import percent
from tests.browser import CHROMIUM, DRIVER, chromium
from tests.harness.made_runs import benchmark_tasks, task_result, write_run
from tests.harness.reasoning_runs import Row, remade, three_modes
from tests.patience import PATIENCE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="chromium or chromedriver is not installed (apt: chromium-driver)"
    ),
]

LONG = 100_000
MARKUP = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'><b>bold</b>"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)


@pytest.fixture(scope="module")
def modes(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return three_modes(cache, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def page(modes: list[Path], cache: Path) -> Path:
    output = modes[0].parent / "page.html"
    pictures = [InlinePicture("Gate <calibration>", "A curve", PNG)]
    make_page(modes, output, data=cache / "mini-v1-seed0", thumbnails=4, pictures=pictures)
    return output


@pytest.fixture(scope="module")
def harmful(modes: list[Path], cache: Path) -> Path:
    """A page of one run whose name, rationales and candidates want to be more than text."""

    def spoil(name: str, rows: list[Row]) -> None:
        rows[0]["rationale"] = MARKUP
        rows[1]["rationale"] = "safe \u202e txt.exe \u2066 \u0007"
        rows[2]["rationale"] = "0123456789" * (LONG // 10)
        rows[0]["top_ids"] = [MARKUP, *rows[0]["top_ids"][1:]]

    folder = remade(modes[0].parent / "real", modes[0].parent / "<img src=x onerror=hacked=1>\u202e", "always", spoil)
    output = modes[0].parent / "harmful.html"
    make_page([folder], output, data=cache / "mini-v1-seed0", thumbnails=0)
    return output


@pytest.fixture(scope="module")
def window() -> Iterator[Chrome]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(window: Chrome, page: Path) -> Iterator[Chrome]:
    """On the page's summary; whatever a test did to it, nothing was logged and nobody asked for anything."""
    opened(window, page)
    yield window
    assert not window.get_log("browser")
    assert not {url for url in requests(window) if not url.startswith(("file://", "data:"))}


def opened(window: Chrome, page: Path, where: str = "", rows: str = "#tasks tbody tr") -> None:
    window.get("about:blank")
    window.get_log("browser")
    window.get_log("performance")
    window.get(page.as_uri() + where)
    WebDriverWait(window, PATIENCE).until(lambda one: one.find_elements(By.CSS_SELECTOR, rows))


def requests(window: Chrome) -> list[str]:
    events = [json.loads(entry["message"])["message"] for entry in window.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def task(window: Chrome, page: Path, name: str, query: str = "") -> None:
    opened(window, page, f"#task={name}" + (f"&query={query}" if query else ""))
    WebDriverWait(window, PATIENCE).until(lambda one: one.find_elements(By.CSS_SELECTOR, "#task .open-row"))


def all_of(window: Chrome | WebElement, selector: str) -> list[WebElement]:
    return window.find_elements(By.CSS_SELECTOR, selector)


def one_of(window: Chrome | WebElement, selector: str) -> WebElement:
    return window.find_element(By.CSS_SELECTOR, selector)


def texts(window: Chrome, selector: str) -> list[str]:
    found: list[str] = window.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)", selector
    )
    return found


def rows_of(modes: list[Path]) -> list[TaskRow]:
    source = open_runs(modes)
    return [collect_task(source, name, 0)[0] for name in source.task_names]


def field(window: Chrome, label: str) -> WebElement:
    return window.find_element(
        By.XPATH, f"//label[starts-with(normalize-space(.), '{label}')]/*[self::input or self::select]"
    )


def wait_for(window: Chrome, selector: str, expected: list[str]) -> None:
    WebDriverWait(window, PATIENCE).until(
        lambda one: texts(one, selector) == expected, f"{selector}: {texts(window, selector)}"
    )


def test_it_opens_from_a_file_and_asks_for_nothing(browser: Chrome, page: Path, modes: list[Path]) -> None:
    assert [url for url in requests(browser) if not url.startswith("data:")] == [page.as_uri()]
    assert one_of(browser, "h1").text == "Evaluation of bag_of_features"
    assert "3 runs · 3 tasks · 88 queries" in one_of(browser, "#subtitle").text
    assert "These are not MMEB-V2 scores" in one_of(browser, "#warnings").text
    assert [one.text.split("\n")[0] for one in all_of(browser, "#runs tbody th")] == [folder.name for folder in modes]
    assert texts(browser, "#means tr.strong td.number")[1:] == ["3 of 78 tasks "] * 3


def test_means_and_differences_to_the_first_run(window: Chrome, tmp_path: Path) -> None:
    for name, score in (("first", 0.5), ("second", 0.625)):
        write_run(tmp_path / name, [task_result(task, metrics={task.metric: score}) for task in benchmark_tasks()])
    source = open_runs([tmp_path / "first", tmp_path / "second"])
    write_page(tmp_path / "page.html", summary_of(source, [], "today", []), [])
    window.get((tmp_path / "page.html").as_uri())
    assert texts(window, "#means tbody th")[-4:] == ["image", "video", "visdoc", "overall"]
    assert texts(window, "#means tr.strong td.number") == ["78", "50.0 ", "62.5 +12.5"]
    assert texts(window, "#warnings li") == ["texts and pictures are not shown: --data FOLDER names the data folder."]


def test_the_pictures_are_shown(browser: Chrome) -> None:
    assert one_of(browser, "#pictures figcaption").text == "Gate <calibration>"
    image = one_of(browser, "#pictures img")
    assert image.get_attribute("alt") == "A curve"
    assert browser.execute_script("return arguments[0].naturalWidth", image) == 1


def test_tasks_are_sorted_and_filtered(browser: Chrome, modes: list[Path]) -> None:
    rows = rows_of(modes)
    header = one_of(browser, "#tasks th[data-key=run-1]")
    for direction, reverse in (("descending", True), ("ascending", False)):
        one_of(header, "button").click()
        assert header.get_attribute("aria-sort") == direction
        expected = sorted(rows, key=lambda row: row.cells[1].score if row.cells[1] else 0, reverse=reverse)
        assert texts(browser, "#tasks tbody a") == [row.name for row in expected]
    field(browser, "Task").send_keys("vbench")
    wait_for(browser, "#tasks tbody a", ["MVBench"])
    field(browser, "Task").send_keys(Keys.BACKSPACE * 6, " ")
    wait_for(browser, "#tasks [role=status]", ["3 shown"])
    Select(field(browser, "Modality")).select_by_visible_text("visdoc")
    assert texts(browser, "#tasks tbody a") == ["ViDoSeek-doc"]
    Select(field(browser, "Group")).select_by_visible_text("I-QA")
    assert texts(browser, "#tasks tbody a") == []
    assert texts(browser, "#tasks [role=status]") == ["Nothing fits the filters"]


def test_another_measure_per_run(browser: Chrome) -> None:
    Select(field(browser, "Show per run")).select_by_value("tied")
    cells = texts(browser, "#tasks tbody tr:first-child td.number")
    assert cells[0] == "24"
    assert not [cell for cell in cells[2:5] if "." in cell]


def test_a_query_beside_what_every_run_made_of_it(browser: Chrome, page: Path, modes: list[Path]) -> None:
    one_of(browser, "#tasks tbody a").click()
    WebDriverWait(browser, PATIENCE).until(lambda one: all_of(one, "#task .open-row"))
    assert not one_of(browser, "#overview").is_displayed()
    assert browser.switch_to.active_element.text == "OK-VQA"
    one_of(browser, "#task .open-row").click()
    detail = one_of(browser, "td.detail")
    assert "Represent the given image with the following question:" in detail.text
    assert "follow the rules from the largest" in detail.text
    never, always, adaptive = all_of(detail, ".side-by-side > .card")
    assert "✗ 7 of 32" in never.text
    assert "direct, gate 0.125" in never.text
    assert "because of" not in never.text
    for card in (always, adaptive):
        assert "✓ 1 of 32" in card.text
        assert "reasoned, gate 0.875" in card.text
        assert "because of" in card.text
    task = collect_task(open_runs(modes), "OK-VQA", 0)[1]
    run = task.runs[0]
    assert run is not None
    lines = all_of(never, ".places li")
    assert [one_of(line, ".said").text for line in lines] == [task.candidates.ids[one] for one in run.top[0] or ()]
    assert [line.text.split("\n")[-1] for line in lines] == [f"{score:.4f}" for score in (run.top_scores[0] or ())]
    relevant = [task.candidates.ids[one] for one in task.relevant[0]]
    marked = [one_of(line, ".said").text for line in all_of(detail, ".places li.relevant")]
    assert set(marked) == set(relevant)
    image = one_of(detail, ".ask img")
    WebDriverWait(browser, PATIENCE).until(
        lambda one: one.execute_script("return arguments[0].naturalWidth", image) > 0
    )
    one_of(browser, "nav a").click()
    assert one_of(browser, "#overview").is_displayed()
    assert browser.switch_to.active_element.text == "OK-VQA"


def pressed(browser: Chrome, *names: str) -> list[str]:
    """Queries that are left under these filters."""
    for name in names:
        one_of(browser, f"[data-filter={name}]").click()
    left = [label.removeprefix("Query ") for label in labels(browser)]
    for name in names:
        one_of(browser, f"[data-filter={name}]").click()
    return left


def labels(browser: Chrome) -> list[str]:
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('#task .open-row')].map((one) => one.getAttribute('aria-label'))"
    )
    return found


def test_filters(browser: Chrome, page: Path, modes: list[Path]) -> None:
    task(browser, page, "OK-VQA")
    ids = list(collect_task(open_runs(modes), "OK-VQA", 0)[1].ids)
    assert pressed(browser) == ids
    assert pressed(browser, "helped") == ids[0::4]
    assert pressed(browser, "hurt") == ids[1::4]
    assert pressed(browser, "differ") == [one for place, one in enumerate(ids) if place % 4 < 2]
    assert pressed(browser, "tie") == [ids[2]]
    assert pressed(browser, "truncated") == [ids[3]]
    assert pressed(browser, "helped", "hurt") == []
    assert pressed(browser, "pictured") == [ids[0], ids[1], ids[4], ids[5]]
    Select(field(browser, "Right, wrong")).select_by_visible_text("toy-always")
    assert pressed(browser, "right") == [one for place, one in enumerate(ids) if place % 4 in (0, 2)]
    assert pressed(browser, "wrong", "hurt") == ids[1::4]
    assert one_of(browser, "[data-filter=wrong]").text == "Wrong 12"


def test_words_are_found_in_queries_rationales_and_candidates(browser: Chrome, page: Path, modes: list[Path]) -> None:
    task(browser, page, "OK-VQA")
    stored = collect_task(open_runs(modes), "OK-VQA", 0)[1]
    field(browser, "Words").send_keys(f"BECAUSE of {stored.ids[17]}")
    wait_for(browser, "#task [role=status]", ["1 shown"])
    assert labels(browser) == [f"Query {stored.ids[17]}"]
    field(browser, "Words").clear()
    field(browser, "Words").send_keys("orange diamond")
    WebDriverWait(browser, PATIENCE).until(lambda one: 0 < len(labels(one)) < 24 and len(labels(one)) != 1)
    field(browser, "Words").clear()
    field(browser, "Words").send_keys("nowhere to be found")
    wait_for(browser, "#task [role=status]", ["Nothing fits the filters"])


def test_queries_come_in_pages_and_are_sorted(browser: Chrome, page: Path) -> None:
    task(browser, page, "MVBench")
    assert len(labels(browser)) == 25
    first = labels(browser)
    all_of(browser, "#task .pager button")[1].click()
    assert texts(browser, "#task [role=status]") == ["26 to 40 of 40"]
    assert len(labels(browser)) == 15
    assert not set(first) & set(labels(browser))
    one_of(browser, "#task th[data-key=run-0] button").click()
    ranks = texts(browser, "#task td.number > span")[::3]
    assert ranks == ["✓ 1"] * 20 + ["✗ 7"] * 5
    assert texts(browser, "#task [role=status]") == ["1 to 25 of 40"]


def test_an_address_leads_to_a_query(browser: Chrome, page: Path, modes: list[Path]) -> None:
    last = collect_task(open_runs(modes), "MVBench", 0)[1].ids[-1]
    task(browser, page, "MVBench", last)
    assert texts(browser, "#task [role=status]") == ["26 to 40 of 40"]
    assert browser.switch_to.active_element.get_attribute("aria-label") == f"Query {last}"
    assert len(all_of(browser, "td.detail")) == 1
    assert all_of(browser, "td.detail .thumbnails img") == []  # pictures of four queries only, and it says so
    assert "frames, not on this page" in one_of(browser, "td.detail").text


def test_frames_of_a_clip(browser: Chrome, page: Path) -> None:
    task(browser, page, "MVBench")
    one_of(browser, "[data-filter=pictured]").click()
    one_of(browser, ".open-row").click()
    assert len(all_of(browser, "td.detail .ask img")) == 4


def focused(browser: Chrome, *keys: str) -> dict[str, Any]:
    """What has the focus after these keys."""
    for key in keys:
        browser.switch_to.active_element.send_keys(key)
    described: dict[str, Any] = browser.execute_script(
        "const one = document.activeElement, style = getComputedStyle(one);"
        "return { text: one.textContent, name: one.tagName, outline: style.outlineStyle, width: style.outlineWidth }"
    )
    return described


def test_by_keyboard_alone(browser: Chrome, page: Path) -> None:
    assert focused(browser, Keys.TAB)["text"] == "To the content"
    for _ in range(40):
        now = focused(browser, Keys.TAB)
        if now["text"] == "Task":
            break
        assert now["name"] == "BODY" or now["outline"] == "solid", now
    assert (now["name"], now["outline"], now["width"]) == ("BUTTON", "solid", "3px")
    focused(browser, Keys.ENTER)
    assert texts(browser, "#tasks tbody a") == ["MVBench", "OK-VQA", "ViDoSeek-doc"]
    assert one_of(browser, "#tasks th[data-key=name]").get_attribute("aria-sort") == "ascending"
    while focused(browser, Keys.TAB)["name"] != "A":
        pass
    focused(browser, Keys.ENTER)
    WebDriverWait(browser, PATIENCE).until(lambda one: all_of(one, "#task .open-row"))
    assert one_of(browser, "#task h2").text == "MVBench"
    while focused(browser, Keys.TAB)["text"] != "▸":
        pass
    focused(browser, Keys.SPACE)
    button = one_of(browser, "#task .open-row")
    assert button.get_attribute("aria-expanded") == "true"
    assert browser.switch_to.active_element == button
    assert one_of(browser, "td.detail").is_displayed()
    focused(browser, Keys.ENTER)
    assert all_of(browser, "td.detail") == []


def test_tables_and_fields_have_names(browser: Chrome, page: Path) -> None:
    for where in ("overview", "task"):
        if where == "task":
            task(browser, page, "OK-VQA")
        scope = f"#{where}"
        assert all(texts(browser, f"{scope} caption"))
        assert len(all_of(browser, f"{scope} table")) == len(all_of(browser, f"{scope} caption"))
        assert all_of(browser, f"{scope} thead th:not([scope=col])") == []
        unnamed = "return [...document.querySelectorAll('input, select')].filter((one) => !one.labels.length).length"
        assert browser.execute_script(unnamed) == 0
        assert (
            browser.execute_script("return [...document.images].filter((one) => !one.hasAttribute('alt')).length") == 0
        )
    assert [len(all_of(browser, name)) for name in ("header", "main", "footer", "h1")] == [1, 1, 1, 1]


def brightness(browser: Chrome) -> int:
    color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(","))


def test_dark_where_that_is_preferred(browser: Chrome) -> None:
    assert brightness(browser) == 3 * 255
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        assert brightness(browser) < 120
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_narrow_window_scrolls_only_inside_tables(browser: Chrome, page: Path) -> None:
    size = {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for where in ("overview", "task"):
            if where == "task":
                task(browser, page, "MVBench")
                one_of(browser, "#task .open-row").click()
                card = one_of(browser, "td.detail .side-by-side .card").rect
                assert card["x"] >= 0
                assert card["x"] + card["width"] <= 360
            assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_texts_that_mean_harm_stay_texts(window: Chrome, harmful: Path) -> None:
    opened(window, harmful)
    name = "<img src=x onerror=hacked=1>"
    assert name in one_of(window, "#runs tbody th").text
    assert "U+202E" in one_of(window, "#runs tbody th").text
    elements = len(all_of(window, "script, img, b"))
    task(window, harmful, "OK-VQA")
    for button in all_of(window, "#task .open-row")[:3]:
        button.click()
    markup, marks, long = all_of(window, "td.detail")
    assert one_of(markup, ".rationale").text == MARKUP
    assert one_of(markup, ".places .said").text == MARKUP
    assert one_of(marks, ".rationale").text == "safe U+202E txt.exe U+2066 U+0007"
    assert [one.text for one in all_of(marks, ".rationale .control")] == ["U+202E", "U+2066", "U+0007"]
    assert one_of(marks, ".rationale").get_attribute("dir") == "auto"
    assert len(one_of(long, ".rationale").text) < 700
    more = one_of(long, "button.link")
    assert more.text == "Show all 100,000 characters"
    more.click()
    assert len(one_of(long, ".rationale").text) == LONG
    more.click()
    assert len(one_of(long, ".rationale").text) < 700
    assert window.execute_script("return window.hacked") is None
    assert len(all_of(window, "script, img, b")) == elements
    assert not window.get_log("browser")
    assert not [url for url in requests(window) if not url.startswith(("file://", "data:"))]


def test_the_policy_stops_what_gets_in_all_the_same(window: Chrome, page: Path) -> None:
    opened(window, page)
    window.execute_script(
        "const script = document.createElement('script'); script.textContent = 'window.hacked = 1';"
        "const image = document.createElement('img'); image.src = 'http://127.0.0.1:9/x.png';"
        "document.body.append(script, image);"
    )
    assert window.execute_script("return window.hacked") is None
    refused = [entry["message"] for entry in window.get_log("browser")]
    assert sum("Content Security Policy" in message for message in refused) == 2


def test_a_file_cut_short_says_so(window: Chrome, page: Path, tmp_path: Path) -> None:
    whole = page.read_text()
    cut = tmp_path / "cut.html"
    cut.write_text(whole[: whole.index('id="task-2"') + 200])
    opened(window, cut, "#task=ViDoSeek-doc")
    WebDriverWait(window, PATIENCE).until(lambda one: all_of(one, "#task [role=alert]"))
    assert "can't be unpacked" in one_of(window, "#task [role=alert]").text
    window.get_log("browser")


# Leaderboards.

PUBLISHED = ("WeMM-Embedding-9B", "DME-Large", "DME-Small", "UEmbed-2B", "UEmbed-9B", "colpali-v1.3")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Published models, a run that lacks tasks and whose name means harm, and a run over somebody's own task."""
    folder = tmp_path_factory.mktemp("boards")
    tasks = benchmark_tasks()
    write_run(folder / "part", [task_result(task) for task in tasks[:-1]], name=MARKUP)
    own = dataclasses.replace(tasks[0], name="captions", group="My-RET", edition="")
    write_run(folder / "own", [task_result(own)], data="my pages", edition="")
    known = load_published()
    published = [published_entry(find_published(known, name)) for name in PUBLISHED]
    entries = [load_entry(folder / "part"), load_entry(folder / "own"), *published]
    output = folder / "board.html"
    output.write_text(board_page(leaderboards(entries, with_tasks=True)))
    return output


@pytest.fixture
def boards(window: Chrome, board: Path) -> Iterator[Chrome]:
    """On the page; whatever a test did to it, nothing was logged and nobody asked for anything."""
    opened(window, board, rows="#table-1 tbody tr")
    yield window
    assert not window.get_log("browser")
    assert [url for url in requests(window) if not url.startswith("data:")] == [board.as_uri()]


def heads(window: Chrome, table: int = 1) -> list[str]:
    return texts(window, f"#table-{table} thead th .sort")


def names(window: Chrome, table: int = 1) -> list[str]:
    return texts(window, f"#table-{table} tbody th > bdi")


def test_a_board_is_sorted_filtered_and_unfolded(boards: Chrome) -> None:
    assert texts(boards, "h2") == ["MMEB-V2, edition page-fixed", "my pages"]
    assert texts(boards, "#contents a") == ["MMEB-V2, edition page-fixed", "my pages"]
    assert one_of(boards, "#subtitle").text == "8 models · 2 tables"
    # As ranked, what has no rank last; texts stay texts.
    assert names(boards)[0] == "WeMM-Embedding-9B"
    assert names(boards)[-1] == MARKUP
    assert "not ranked: 77 of 78 tasks" in texts(boards, "#table-1 tbody tr:last-child th")[0]
    assert boards.execute_script("return window.hacked") is None
    folded = ["Model", "Rank", "Rank 95 %", "All", "Ties", "image", "video", "visdoc"]
    assert heads(boards) == [*folded, "parameters"]
    bold = [cell.text for cell in all_of(boards, "#table-1 tbody strong")]
    assert bold == ["80.6", "81.9", "74.4", "83.4"]
    # By any column, up and down; what has no value is last either way.
    for label, first in (("visdoc", ["DME-Large", "colpali-v1.3"]), ("parameters", ["UEmbed-9B", "DME-Small"])):
        button = next(element for element in all_of(boards, "#table-1 .sort") if element.text.startswith(label))
        for name in first:
            button.click()
            assert names(boards)[0] == name, label
            assert names(boards)[-1] == MARKUP
    # Folded columns: one modality, then all groups, then tasks.
    fold = one_of(boards, "#table-1 th[data-key=image] .fold")
    fold.click()
    assert heads(boards) == [*folded[:6], "I-CLS", "I-QA", "I-RET", "I-VG", *folded[6:], "parameters"]
    assert boards.switch_to.active_element.get_attribute("aria-expanded") == "true"
    one_of(boards, "#table-1 th[data-key=I-VG] .fold").click()
    assert heads(boards)[9:14] == ["I-VG", "MSCOCO", "RefCOCO", "RefCOCO-Matching", "Visual7W-Pointing"]
    chips = {chip.text: chip for chip in all_of(boards, "#table-1 .chip")}
    chips["Groups"].click()
    assert len(heads(boards)) == len(folded) + 12 + 4 + 1
    chips["Tasks"].click()
    assert len(heads(boards)) == len(folded) + 12 + 78 + 1
    assert chips["Groups"].get_attribute("aria-pressed") == "true"
    chips["Tasks"].click()
    chips["Size and cost"].click()
    chips["Edition, profile, data"].click()
    assert heads(boards) == [*folded, "edition", "profile", "data"]
    Select(field(boards, "Group")).select_by_visible_text("I-VG")
    assert heads(boards)[3:10] == ["All", "Ties", "I-VG", "MSCOCO", "RefCOCO", "RefCOCO-Matching", "Visual7W-Pointing"]
    Select(field(boards, "Scores")).select_by_visible_text("own runs")
    assert names(boards) == [MARKUP]
    Select(field(boards, "Scores")).select_by_visible_text("all")
    field(boards, "Text").send_keys("uembed")
    wait_for(boards, "#table-1 [role=status]", ["2 shown"])
    assert names(boards) == ["UEmbed-9B", "UEmbed-2B"]
    one_of(boards, "#table-1 .models summary").click()
    boxes = {box.text.strip(): one_of(box, "input") for box in all_of(boards, "#table-1 .boxes label")}
    boxes["UEmbed-9B"].click()
    assert names(boards) == ["UEmbed-2B"]
    assert one_of(boards, "#table-1 .models summary").text == "Models: 6 of 7"
    # The other table is untouched by all of it.
    assert names(boards, 2) == ["own"]
    assert heads(boards, 2) == ["Model", "Rank", "Rank 95 %", "All", "Ties", "captions"]


def test_a_board_by_keyboard_in_the_dark_and_on_a_narrow_screen(boards: Chrome) -> None:
    while focused(boards, Keys.TAB)["text"] != "visdoc":
        assert focused(boards)["name"] != "BODY"
    assert focused(boards)["outline"] == "solid"
    focused(boards, Keys.ENTER)
    assert one_of(boards, "#table-1 th[data-key=visdoc]").get_attribute("aria-sort") == "descending"
    assert focused(boards, Keys.TAB)["text"] == "▸"
    focused(boards, Keys.SPACE)
    assert "VisRAG" in heads(boards)
    assert focused(boards)["text"] == "◂"
    assert boards.execute_script(
        "return [...document.querySelectorAll('input, select')].every((one) => one.labels.length)"
    )
    assert brightness(boards) == 3 * 255
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    size = {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": False}
    boards.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    boards.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert brightness(boards) < 120
        assert boards.execute_script("return document.documentElement.scrollWidth") <= 360
        # The table scrolls inside itself; whose row it is stays in sight, and so does the last column.
        first, last = (one_of(boards, f"#table-1 tbody tr:first-child > :{place}-child") for place in ("first", "last"))
        before = first.rect["x"]
        boards.execute_script("const box = arguments[0].closest('.scroll'); box.scrollLeft = box.scrollWidth", first)
        places = boards.execute_script(
            "return [...arguments].map((one) => one.getBoundingClientRect().toJSON())", first, last
        )
        assert places[0]["left"] == before
        assert places[0]["right"] <= places[1]["left"]
        assert places[1]["right"] <= 360
    finally:
        boards.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        boards.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_both_pages_print_the_digits_that_the_tables_print(boards: Chrome) -> None:
    values = [number / 160 for number in range(161)] + [0.585, 0.5850000000000001, 0.31249999, 0.00125]
    assert boards.execute_script("return arguments[0].map(percent)", values) == [percent(value) for value in values]
