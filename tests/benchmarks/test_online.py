import json

import pytest

from benchmarks import online, online_report


@pytest.mark.usefixtures("standard_promotion", "quick_compilation")
def test_a_tiny_measurement_writes_its_numbers_and_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(online, "CELLS", {k: online.CELLS[k] for k in ("GRU(H)", "LRU(H)")})
    common = ["--into", str(tmp_path)]
    online.main(["--sizes", "3", "--steps", "2", "--rounds", "1", *common])
    results = json.loads((tmp_path / "benchmarks/results/online.json").read_text("utf-8"))
    carried = {(m["cell"], m["rule"]): m["trace_bytes"] for m in results["measured"]}
    params = 3 * (3 * 3 + 3 * 3 + 3) + 3
    assert carried["GRU(H)", "rtrl"] == 4 * 3 * params  # three states for each param
    assert carried["GRU(H)", "snap(1)"] == carried["GRU(H)", "eprop"] == 4 * params
    key = 8  # two words
    assert carried["GRU(H)", "uoro"] == 4 * (params + 3) + key
    # The real and the imaginary part of one unit for λ, γ and B, and nothing for C and D.
    assert carried["LRU(H)", "rtrl"] == 4 * 2 * (3 * 3 + 2 * 3 * 3)
    assert ("LRU(H)", "eprop") not in carried
    page = tmp_path / "docs/online.md"
    written = page.read_text("utf-8")
    assert written == online_report.document(results)
    assert "| `LRU(H)` | 3 |" in written
    page.unlink()
    online.main(["--report-only", *common])
    assert page.read_text("utf-8") == written
    capsys.readouterr()


def test_what_cannot_be_measured_is_refused(tmp_path):
    for option in ("--steps", "--rounds", "--batch"):
        with pytest.raises(SystemExit, match="expected at least 1"):
            online.main([option, "0", "--into", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"online.json does not exist; expected it"):
        online.main(["--report-only", "--into", str(tmp_path)])
