"""What is printed: nothing that a terminal obeys, no key, and no end of the work where it can't be written."""

from __future__ import annotations

import ast
import base64
import io
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmeb_harness.core import secrets
from mmeb_harness.core.secrets import keep_secret, masked
from mmeb_harness.core.terminal import paper, print_shown, shown
from tests.test_architecture import PACKAGES, files

KEY = "sk-Ab/1+2="


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(secrets, "_keys", {})
    keep_secret(KEY)
    return KEY


@settings(max_examples=200, derandomize=True)
@given(st.text())
def test_nothing_is_printed_that_a_terminal_obeys_or_hides(text: str) -> None:
    printed = shown(text)
    assert not {sign for sign in printed if unicodedata.category(sign) in ("Cc", "Cs")} - set("\n\t")
    assert not re.search("[\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]", printed)
    assert shown(printed) == printed


def test_other_signs_stay() -> None:
    assert shown("Größe 漢字 🎉 [/b] 1\u00a0000\tx\n") == "Größe 漢字 🎉 [/b] 1\u00a0000\tx\n"


def test_only_richs_own_control_codes_reach_a_terminal() -> None:
    from rich.text import Text

    file = io.StringIO()
    console = paper(file, 60)
    console.print(Text("a\x1b[31mb"))
    print_shown(console, "[/b] :smile: \x1b]8;;http://x\x07")
    assert file.getvalue() == "a\\u001b[31mb\n[/b] :smile: \\u001b]8;;http://x\\u0007\n"


@pytest.mark.parametrize(
    "spelled",
    [
        *(KEY, KEY.upper(), "".join(f"\\u{ord(sign):04X}" for sign in KEY), KEY.replace("+", "%2B")),
        *(KEY.replace("/", sign) for sign in ("\\u002f", "\\/", "%252f", "&#47;", "&#x2F;")),
    ],
)
def test_a_key_is_masked_however_it_is_spelled(key: str, spelled: str) -> None:
    assert masked(f"Bearer {spelled}!") == "Bearer [key]!"
    assert shown(f"Bearer {spelled}!") == "Bearer [key]!"


@pytest.mark.parametrize("before", ["", "a", "me:", "Bearer "])
def test_a_key_is_masked_in_base64(key: str, before: str) -> None:
    coded = base64.b64encode(f"{before}{KEY}:".encode()).decode()
    assert re.fullmatch(r"[\w+/=]{0,12}\[key\][\w+/=]{0,4}", masked(coded))


@pytest.mark.slow
def test_all_that_is_printed_goes_through_one_module() -> None:
    own = PACKAGES["mmeb_harness"] / "core" / "terminal.py"
    for path in [file for package in PACKAGES for file in files(package) if file != own]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                printing = ("print", "click.echo", "click.secho", "Console", "sys.stdout.write", "sys.stderr.write")
                assert name not in printing, f"{path}:{node.lineno}: {name}"
                assert not name.startswith("traceback.print_"), f"{path}:{node.lineno}: {name}"


SCRIPT = """
import sys
from mmeb_harness.core.terminal import lost_output, open_streams, say, say_kept
open_streams()
for _ in range(3000):
    say("é … – 漢 \\udcff")
{last}
say(f"lost: {{lost_output()}}", err=True)
"""


def _script(last: str, redirection: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    words = ["sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, SCRIPT.format(last=last)]
    return subprocess.run(words, capture_output=True, env={"PATH": os.environ["PATH"]} | env)


@pytest.mark.parametrize(
    ("redirection", "lost"),
    [("> /dev/full", "[Errno 28] No space left on device"), (">&-", "None"), ("| true", "None")],
)
def test_what_cannot_be_written_is_dropped(redirection: str, lost: str) -> None:
    done = _script("", redirection)
    assert done.returncode == 0
    assert done.stderr.decode().splitlines() == [f"lost: {lost}"]


def test_finished_work_is_told_on_standard_error_where_standard_output_is_lost() -> None:
    done = _script("say_kept('results: a')", "> /dev/full")
    assert done.stderr.decode().splitlines() == [
        "results: a; standard output can't be written (No space left on device)",
        "lost: None",
    ]


@pytest.mark.parametrize(
    ("encoding", "line"),
    [("latin-1", "é ... - ? \\udcff"), ("koi8-r", "e ... - ? \\udcff"), ("ascii", "e ... - ? \\udcff")],
)
def test_what_an_encoding_lacks_is_replaced(encoding: str, line: str) -> None:
    done = _script("", "", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.decode(encoding).splitlines()) == {line}


def test_a_closed_standard_output_gives_its_number_to_no_file(tmp_path: Path) -> None:
    last = f"print(open({str(tmp_path / 'own')!r}, 'w').fileno(), file=sys.stderr)"
    assert int(_script(last, "<&- >&-").stderr.split()[0]) > 2


def test_of_two_keys_that_begin_alike_nothing_is_left() -> None:
    keep_secret("abcd-1234")
    keep_secret("abcd-12345678")
    assert masked("abcd-12345678, abcd-1234") == "[key], [key]"
