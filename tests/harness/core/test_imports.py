from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from mmeb_harness.core.imports import when_imported


def test_what_waits_for_a_module_comes_right_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "waited_for.py").write_text("import sys\nsays = 'made'\nassert 'other' not in sys.modules\n")
    heard: list[str] = []
    before = list(sys.meta_path)
    when_imported("waited_for", lambda: heard.append(sys.modules["waited_for"].says))
    when_imported("not_there", lambda: heard.append("never"))
    import_module("colorsys")
    with pytest.raises(ModuleNotFoundError):
        import_module("not_there")
    assert heard == []
    module = import_module("waited_for")
    import_module("waited_for")
    when_imported("waited_for", lambda: heard.append("too late"))
    assert heard == ["made"]
    assert sys.meta_path == before
    assert "exec_module" not in vars(module.__loader__)


def test_arrays_need_no_pandas_and_know_it_once_it_is_there() -> None:
    code = """
import sys
from mmeb_harness.core.imports import spare_pandas
spare_pandas()
import pyarrow as pa
assert pa.table({"x": pa.array(["a", None])}).num_rows == 2
assert "pandas" not in sys.modules
import pandas as pd
assert pa.array(pd.Series([1.0, float("nan")])).null_count == 1  # of a list it would be a number
assert pa.table(pd.DataFrame({"x": [1]})).to_pandas().shape == (1, 1)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
