"""The page of pictures: whole, as the command writes it, and of examples as they are now."""

import json

import pytest

from docs import gallery


def test_the_page_is_what_the_command_wrote_with_what_the_examples_say_of_themselves_now():
    printed = json.loads((gallery.PICTURES / "printed.json").read_text("utf-8"))
    assert set(printed) == set(gallery.DRAWN)
    written = (gallery.FOLDER / "gallery.md").read_text("utf-8")
    assert written == gallery.document(printed), "docs/gallery.md is old: python -m docs.gallery"


@pytest.mark.parametrize("name", gallery.DRAWN)
def test_every_file_that_the_page_shows_is_there(name):
    page = (gallery.FOLDER / "gallery.md").read_text("utf-8")
    for file in gallery.DRAWN[name]:
        shown = gallery.PICTURES / f"{name}.{file.rpartition('.')[2]}"
        assert f"gallery/{shown.name}" in page
        assert shown.stat().st_size > 200


def test_one_example_is_written_again_and_the_others_stay(tmp_path):
    gallery.main(["tagging", "music"], tmp_path, run=lambda name: f"{name} once\n")
    gallery.main(["music"], tmp_path, run=lambda name: f"{name} twice\n")
    page = (tmp_path / "gallery.md").read_text("utf-8")
    assert "tagging once" in page
    assert "music twice" in page
    assert "music once" not in page


def test_a_name_that_is_none_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"expected some of sentiment, .*, got poetry"):
        gallery.main(["poetry"], tmp_path)
