"""A format that changes is not forgotten among the samples."""

from pathlib import Path
from unittest.mock import patch

from scripts import write_format_samples
from tests.faults import old_formats


def test_a_format_without_a_sample_is_told() -> None:
    with patch.dict(write_format_samples.FORMATS, {"SQLite": 99}):
        assert old_formats.lacking() == ["SQLite 99"]


def test_the_script_writes_the_same_bytes_each_time(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        write_format_samples.write(folder)
    written = {file.relative_to(first): file.read_bytes() for file in first.rglob("*") if file.is_file()}
    assert len(written) == 7
    assert written == {file.relative_to(second): file.read_bytes() for file in second.rglob("*") if file.is_file()}
