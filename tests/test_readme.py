"""The README's program runs as it stands."""

from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.usefixtures("standard_promotion")
def test_the_twenty_lines_of_the_readme_run(capsys):
    blocks = README.read_text("utf-8").split("```python\n")[1:]
    assert len(blocks) == 1
    code = blocks[0].split("```")[0]
    names: dict = {}
    exec(compile(code, README.name, "exec"), names)
    assert names["metrics"]["loss"].value.shape == (4,)
    assert names["ys"].shape == (100, 8, 256)
    assert "engine chunked" in capsys.readouterr().out
