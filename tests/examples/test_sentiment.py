import dataclasses
import json

import pytest

from examples import sentiment


def test_made_up_sentences_hold_what_a_bag_of_words_cannot_see():
    sentences = sentiment.made_up(2000, seed=0)
    for words, label in sentences:
        last = words[len(words) - words[::-1].index("but") :] if "but" in words else words
        good = last[-1] in ("good", "great", "moving", "funny")
        assert label == ("praise" if good != ("not" in last) else "complaint")
    assert 0.4 < sum(label == "praise" for _, label in sentences) / 2000 < 0.6


@pytest.mark.full
def test_it_learns_and_the_same_call_goes_on(tmp_path, capsys):
    options = sentiment.Options(steps=400, run=tmp_path, display=False)
    found = sentiment.main(options)
    assert found["accuracy"] > 0.95
    assert (tmp_path / "curves.png").stat().st_size > 5000
    assert sentiment.main(options) == found  # nothing is left to do
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 400
    assert "test: " in capsys.readouterr().out


def test_ones_own_files_are_read_and_a_bad_line_is_named(tmp_path):
    for part in ("train", "dev", "test"):
        lines = [f"{' '.join(words)}\t{label}" for words, label in sentiment.made_up(200, seed=1)]
        (tmp_path / f"{part}.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    options = sentiment.Options(
        data=tmp_path, features=4, embedding=4, steps=2, run=tmp_path / "run", display=False
    )
    assert 0 <= sentiment.main(options)["accuracy"] <= 1
    (tmp_path / "dev.tsv").write_text("good film\tpraise\nno label here\n", "utf-8")
    with pytest.raises(ValueError, match=r"dev\.tsv, line 2: .*"):
        sentiment.main(options)
    (tmp_path / "dev.tsv").write_text("good film\tpraise\nso so\tneither\n", "utf-8")
    with pytest.raises(ValueError, match=r"dev\.tsv, line 2: .*'neither'"):
        sentiment.read(options)
    skipped = sentiment.read(dataclasses.replace(options, bad="skip"))
    assert skipped["dev"] == [(("good", "film"), "praise")]
