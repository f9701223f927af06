"""Sentences with labels, with tags, and in two languages: what is read, and which line is refused."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqjax.data import Labels, read_columns, read_parallel, read_tsv

PRINTABLE = st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"])
WORDS = st.text(PRINTABLE, min_size=1)


@pytest.fixture
def write(tmp_path: Path):
    """A file with the text given to it."""

    def write(text: str, name: str = "data.txt") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8", newline="\n")
        return tmp_path / name

    return write


# Labelled sentences -------------------------------------------------------------------------------


def test_a_line_is_a_sentence_and_its_label(write):
    file = write("a stirring , funny film\t1\n un  film né \t neg \n")
    assert read_tsv(file) == [
        (("a", "stirring", ",", "funny", "film"), "1"),
        (("un", "film", "né"), "neg"),
    ]


def test_columns_are_chosen_by_number_or_by_name(write):
    rows = "gj04\t1\t\tthey drank\ncj99\t0\t*\twe yelled us\n"
    expected = [(("they", "drank"), "1"), (("we", "yelled", "us"), "0")]
    assert read_tsv(write(rows), sentence=3, label=1) == expected
    with_header = write("source\tlabel\tstar\tsentence\n" + rows)
    assert read_tsv(with_header, header=True, sentence="sentence", label="label") == expected
    assert read_tsv(with_header, header=True, sentence=3, label=1) == expected
    assert read_tsv(write("a\t1\tx\n"), columns=3) == [(("a",), "1")]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a\t1\n\t1\n", {}, r"line 2: the sentence \(column 0\) is empty; expected words"),
        ("a\t1\n  \t1\n", {}, r"line 2: the sentence \(column 0\) is empty"),
        ("a\t1\nb\t\n", {}, r"line 2: the label \(column 1\) is empty; expected one"),
        ("a\t1\nb\n", {}, "line 2: expected 2 columns, parted by TAB, got 1"),
        ("a\t1\n\nb\t0\n", {}, "line 2: the line is empty; expected 2 columns, parted by TAB$"),
        ("a\t1\n \nb\t0\n", {}, "line 2: the line is empty; expected 2 columns, parted by TAB$"),
        ("\t\n", {"columns": 3}, "line 1: expected 3 columns, parted by TAB, got 2$"),
        ("\na\t1\n", {"header": True}, "line 1: the line is empty; expected a first line of the"),
        ("a\t1\nb\tc\t0\n", {}, "line 2: expected 2 columns, parted by TAB, got 3"),
        ("s\tl\tx\na\t1\tx\nb\t1\n", {"header": True}, "line 3: expected 3 columns.*, got 2"),
        (
            "a\t1\nb\t2\n",
            {"labels": Labels(("0", "1"))},
            "line 2: label '2' is not known; expected one of '0', '1'",
        ),
        ("s\tl\n", {"header": True}, "holds no lines; expected at least one"),
        ("a\t1\n", {"sentence": "text"}, "sentence: 'text' is a name; expected header=True"),
        (
            "s\tl\na\t1\n",
            {"header": True, "label": "y"},
            r"label: expected one of the header's \['s', 'l'\], got 'y'",
        ),
        ("a\t1\n", {"label": -1}, "read_tsv: label: expected an integer of at least 0, got -1"),
        ("s\ta\n", {"header": True, "label": 2}, "lines have 2 columns; expected at least 3"),
        ("a\t1\n", {"columns": 1}, "lines have 1 columns; expected at least 2"),
        ("a\t1\n", {"columns": 0}, "columns: expected a positive integer, got 0"),
    ],
)
def test_a_bad_line_of_labelled_sentences_is_named(text, options, message, write):
    with pytest.raises(ValueError, match=message):
        read_tsv(write(text), **options)


def test_every_kind_of_bad_line_is_skipped(write):
    file = write("a\t1\n\t1\nb\t\nc\nd\t1\tx\n\ne\t2\nf\t0\n")
    found = read_tsv(file, bad="skip", labels=Labels(("0", "1")))
    assert found == [(("a",), "1"), (("f",), "0")]


@given(st.lists(st.tuples(st.lists(WORDS, min_size=1), WORDS), min_size=1))
def test_labelled_sentences_that_were_written_are_read(tmp_path_factory, sentences):
    file = tmp_path_factory.mktemp("tsv") / "train.tsv"
    lines = [f"{' '.join(words)}\t{label}\n" for words, label in sentences]
    # A byte-order mark at the start of a file is none of its text.
    file.write_text("\ufeff" + "".join(lines), encoding="utf-8", newline="\n")
    assert read_tsv(file) == [(tuple(words), label) for words, label in sentences]


# Tagged sentences ---------------------------------------------------------------------------------

CONLLU = """# sent_id = 1
# text = Vámonos	al mar
1-2\tVámonos\t_\t_
1\tVamos\tir\tVERB
2\tnos\tnosotros\tPRON
3-4\tal\t_\t_
3\ta\ta\tADP
4\tel\tel\tDET
5\tmar\tmar\tNOUN
5.1\tva\tir\tVERB

# sent_id = 2

1\t#\t#\tSYM

"""


def test_sentences_end_at_empty_lines(write):
    expected = [(("Al", "-", "Zaman"), ("PROPN", "PUNCT", "PROPN")), (("Go",), ("VERB",))]
    text = "Al\tPROPN\n-\tPUNCT\nZaman\tPROPN\n\nGo\tVERB\n"
    assert read_columns(write(text + "\n")) == expected
    assert read_columns(write("\n\n" + text.replace("\n\n", "\n \n\n\n"))) == expected


def test_ranges_and_empty_nodes_of_conll_u_are_no_words(write):
    assert read_columns(write(CONLLU), id=0, form=1, tag=3, columns=4) == [
        (("Vamos", "nos", "a", "el", "mar"), ("VERB", "PRON", "ADP", "DET", "NOUN")),
        (("#",), ("SYM",)),
    ]


def test_without_ids_a_word_may_begin_with_a_hash_and_a_form_may_hold_a_space(write):
    text = "# a comment\n#\tSYM\n#1\tNOUN\n# two\tNUM\n10 000\tNUM\n"
    assert read_columns(write(text)) == [
        (("#", "#1", "# two", "10 000"), ("SYM", "NOUN", "NUM", "NUM"))
    ]


def test_lines_that_are_taken_for_comments_are_counted(write, caplog):
    file = write("a\tX\n#MeToo X\n\n# a comment\n#\tSYM\n")
    with caplog.at_level(logging.WARNING):
        assert read_columns(file) == [(("a",), ("X",)), (("#",), ("SYM",))]
    (record,) = caplog.records
    assert record.getMessage() == (
        f'{file}: took 2 of 5 lines for comments ("#", and no TAB); the first: line 2'
    )


def test_comments_are_not_counted_where_ids_tell_words_from_them(write, caplog):
    read_columns(write(CONLLU), id=0, form=1, tag=3, columns=4)
    read_columns(write("#\tSYM\n"))
    assert caplog.records == []


def test_a_list_of_hashtags_alone_says_that_they_were_taken_for_comments(write, caplog):
    with pytest.raises(ValueError, match="holds no sentences; expected at least one"):
        read_columns(write("#a\n#b\n"), tag=0)
    assert "took 2 of 2 lines for comments" in caplog.text


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a\tX\nb\n", {}, "line 2: expected 2 columns, parted by TAB, got 1"),
        ("a\tX\n\nb\tX\tY\n", {}, "line 3: expected 2 columns, parted by TAB, got 3"),
        ("a\tX\n\tX\n", {}, r"line 2: the form \(column 0\) is empty; expected a word"),
        ("a\tX\nb\t \n", {}, r"line 2: the tag \(column 1\) is empty; expected one"),
        (
            "a\tX\nb\tZ\n",
            {"labels": Labels(("X", "Y"))},
            "line 2: label 'Z' is not known; expected one of 'X', 'Y'",
        ),
        ("1\ta\tX\nx\tb\tX\n", {"id": 0, "form": 1, "tag": 2}, "line 2: the id is 'x'; expected"),
        ("1-2\ta\tX\n", {"id": 0, "form": 1, "tag": 2}, "line 1: the sentence .* has no word"),
        ("# only\n\n", {}, "holds no sentences; expected at least one"),
        ("a\tX\n", {"tag": -1}, "read_columns: tag: expected an integer of at least 0, got -1"),
        ("a\tX\n", {"columns": 1}, "read_columns: lines have 1 columns; expected at least 2"),
    ],
)
def test_a_bad_line_of_tagged_sentences_is_named(text, options, message, write):
    with pytest.raises(ValueError, match=message):
        read_columns(write(text), **options)


def test_a_bad_word_takes_its_whole_sentence_with_it(write, caplog):
    text = "a\tX\nb\n\nc\tX\nd\tY\n\ne\tX\n\nf\tZ\ng\tX\n\n"
    found = read_columns(write(text), bad="skip", labels=Labels(("X", "Y")))
    assert found == [(("c", "d"), ("X", "Y")), (("e",), ("X",))]
    assert "skipped 2 of 4 sentences; the first: " in caplog.text
    assert "line 2: expected 2 columns" in caplog.text


FORMS = WORDS.filter(lambda form: not form.startswith("#"))


@given(st.lists(st.lists(st.tuples(FORMS, WORDS), min_size=1), min_size=1))
def test_tagged_sentences_that_were_written_are_read(tmp_path_factory, sentences):
    file = tmp_path_factory.mktemp("columns") / "train.tsv"
    blocks = ["".join(f"{form}\t{tag}\n" for form, tag in pairs) for pairs in sentences]
    file.write_text("\ufeff" + "\n".join(blocks) + "\n", encoding="utf-8", newline="\n")
    assert read_columns(file) == [tuple(zip(*pairs, strict=True)) for pairs in sentences]


# Two languages ------------------------------------------------------------------------------------


def test_lines_are_paired_by_their_number(write):
    german = write("Zwei Männer.\n Ein Hund \n", "train.de")
    english = write("Two men.\nA dog\n", "train.en")
    assert read_parallel(german, english) == [("Zwei Männer.", "Two men."), ("Ein Hund", "A dog")]


def test_unequal_numbers_of_lines_are_refused_with_both_even_where_lines_may_be_skipped(write):
    german, english = write("a\nb\nc\n", "train.de"), write("x\ny\n", "train.en")
    for bad in ("refuse", "skip"):
        with pytest.raises(ValueError, match=r"\.de has 3 lines but .*train\.en has 2; expected"):
            read_parallel(german, english, bad=bad)


def test_an_empty_line_is_named_with_the_file_it_stands_in(write, caplog):
    german, english = write("a\nb\n\nd\n", "train.de"), write("w\n \ny\nz\n", "train.en")
    with pytest.raises(ValueError, match=r"train\.en, line 2: the line is empty; expected"):
        read_parallel(german, english)
    with pytest.raises(ValueError, match=r"train\.en, line 2: the line is empty; expected"):
        read_parallel(english, german)
    assert read_parallel(german, english, bad="skip") == [("a", "w"), ("d", "z")]
    assert "train.de: skipped 2 of 4 pairs; the first: " in caplog.text
