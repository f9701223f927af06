import collections
import gzip
import json

import pytest

from examples import tagging

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def parts():
    return tagging.read(tagging.Options())


def write(folder, parts, words=15):
    """The short sentences of `parts`, as files: one is packed, two are not."""
    folder.mkdir()
    for name, part in zip(("train", "dev", "test"), parts, strict=True):
        short = [zip(*pair, strict=True) for pair in part if len(pair[0]) <= words]
        text = "\n".join("".join(f"{word}\t{tag}\n" for word, tag in lines) for lines in short)
        file = folder / (f"{name}.tsv.gz" if name == "train" else f"{name}.tsv")
        file.write_bytes(gzip.compress(text.encode()) if name == "train" else text.encode())


def test_the_sentences_are_cut_by_position_and_each_stands_in_one_part(parts):
    text = gzip.decompress(tagging.ENGLISH.read_bytes()).decode()
    blocks = [block.split("\n") for block in text.strip("\n").split("\n\n")]
    places = [("train", 75), ("dev", 10), ("test", 15)]
    order = [name for name, count in places for _ in range(count)]
    expected = {name: [] for name, _ in places}
    for i, lines in enumerate(blocks):
        words, tags = zip(*(line.split("\t") for line in lines), strict=True)
        expected[order[i % 100]].append((words, tags))
    assert parts == list(expected.values())
    assert sum(map(len, parts)) == 2001
    assert all(len({tag for _, tags in part for tag in tags}) == 17 for part in parts)


@pytest.mark.full
def test_it_learns_what_the_most_frequent_tag_does_not_know_and_the_same_call_goes_on(
    parts, tmp_path, capsys
):
    write(tmp_path / "data", parts)
    options = tagging.Options(
        data=tmp_path / "data",
        letters=16,
        dropout=0.2,
        steps=160,
        learning_rate=1e-2,
        run=tmp_path / "run",
        display=False,
    )
    result = tagging.main(options)
    assert result["accuracy"] > result["baseline"] + 0.02
    assert result["accuracy of unseen words"] > result["baseline of unseen words"] + 0.1
    assert (tmp_path / "run" / "confusion.png").stat().st_size > 5000
    assert tagging.main(options) == result  # nothing is left to do
    records = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 160
    assert "/PUNCT" in capsys.readouterr().out

    counts, train, _, test = collections.defaultdict(collections.Counter), *parts
    for words, tags in (pair for pair in train if len(pair[0]) <= 15):
        for word, tag in zip(words, tags, strict=True):
            counts[word][tag] += 1
    right = total = 0
    for words, tags in (pair for pair in test if len(pair[0]) <= 15):
        for word, tag in zip(words, tags, strict=True):
            best = counts[word].most_common(1)[0][0] if word in counts else "NOUN"
            right += tag == ("PROPN" if word not in counts and word[0].isupper() else best)
            total += 1
    assert result["baseline"] == pytest.approx(right / total)


def test_small_files_are_read_and_a_bad_line_and_an_unknown_tag_are_named(parts, tmp_path):
    write(tmp_path / "data", [parts[0][:20]] * 3)  # so that the training part has all tags
    options = tagging.Options(
        data=tmp_path / "data", features=4, steps=1, run=tmp_path / "run", display=False
    )
    assert 0 <= tagging.main(options)["accuracy"] <= 1
    (tmp_path / "data" / "dev.tsv").write_text("dogs\tNOUN\nbark\n", "utf-8")
    with pytest.raises(ValueError, match=r"dev\.tsv, line 2: expected 2 columns"):
        tagging.main(options)
    (tmp_path / "data" / "dev.tsv").write_text("dogs\tN\n", "utf-8")
    with pytest.raises(ValueError, match=r"dev\.tsv, line 1: .*'N'"):
        tagging.main(options)
