"""The log that is read back: what a killed process leaves, and what is no log."""

import re
from pathlib import Path

import pytest

from seqjax.training import read_log


def test_a_last_line_that_a_killed_process_left_unfinished_is_no_record(tmp_path: Path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "tra')
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1}, {"step": 2}]


def test_a_log_that_is_not_utf_8_is_refused_with_its_file(tmp_path: Path):
    file = tmp_path / "log.jsonl"
    file.write_bytes(b'{"step": 1}\n{"step": \xff}\n')
    expected = f"{file} is not UTF-8: byte 0xff at offset 21; expected a log that training wrote"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        read_log(file)
