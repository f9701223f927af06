import dataclasses

import pytest

from examples import translation


def test_made_up_dates_are_the_same_day_in_both_forms():
    months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
    for read, written in translation.made_up(500, seed=0):
        text, (year, month, day) = "".join(read), "".join(written).split("-")
        assert year[2:] in text
        assert day in text
        assert months[int(month) - 1] in text or month in text


@pytest.mark.full
def test_dates_are_learned_and_the_attention_is_drawn(tmp_path, capsys):
    options = translation.Options(run=tmp_path, steps=200, display=False)
    found = translation.main(options)
    assert found["right, greedy"] > 0.8
    assert found["right, beam"] > 0.8
    assert found["BLEU, beam"] > 90
    assert 1 <= found["perplexity"] < 1.1
    assert (tmp_path / "attention.png").stat().st_size > 5000
    assert "BLEU" in capsys.readouterr().out


def test_parallel_text_is_read_by_its_languages_and_unequal_files_are_refused(tmp_path):
    for part in ("train", "dev", "test"):
        (tmp_path / f"{part}.de").write_text("ein Hund\nzwei Katzen\n" * 20, "utf-8")
        (tmp_path / f"{part}.en").write_text("a dog\ntwo cats\n" * 20, "utf-8")
    options = translation.Options(
        data=tmp_path, features=4, steps=1, run=tmp_path / "run", display=False
    )
    assert 0 <= translation.main(options)["right, beam"] <= 1
    (tmp_path / "test.de").write_text("ein Hund\n\n", "utf-8")
    (tmp_path / "test.en").write_text("a dog\ntwo cats\n", "utf-8")
    with pytest.raises(ValueError, match=r"test\.de, line 2"):
        translation.read(options, "test", 0)
    skipping = dataclasses.replace(options, bad="skip")
    assert translation.read(skipping, "test", 0) == [(("ein", "hund"), ("a", "dog"))]
    with (tmp_path / "dev.en").open("a", encoding="utf-8") as file:
        file.write("one more\n")
    with pytest.raises(ValueError, match=r"40 .*41|41 .*40"):
        translation.main(options)
