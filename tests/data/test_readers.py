"""Sentences with labels, with tags and in two languages, and tables of numbers."""

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from seqjax.data import Labels, read_columns, read_csv, read_parallel, read_tsv

PRINTABLE = st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"])
WORDS = st.text(PRINTABLE, min_size=1)
TABLE = "Date,x,weather,y\n2012-01-01,1.5,rain,-2\n2012-01-02,2e1,sun,3\n2012-01-03,0,,4\n"


@pytest.fixture
def write(tmp_path: Path):
    """Write a file with some text, and return its path."""

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
        ("a\t1\nb\n", {}, "line 2: expected 2 columns, separated by TAB, got 1 in 'b'$"),
        ("a\t1\n\nb\t0\n", {}, "line 2: expected 2 columns, separated by TAB, got an empty line$"),
        ("a\t1\n \nb\t0\n", {}, "line 2: expected 2 columns, separated by TAB, got an empty line$"),
        ("\t\n", {"columns": 3}, r"line 1: expected 3 columns, separated by TAB, got 2 in '\\t'$"),
        ("\na\t1\n", {"header": True}, "line 1: the line is empty; expected a first line with the"),
        ("a\t1\nb\tc\t0\n", {}, "line 2: expected 2 columns, separated by TAB, got 3"),
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


@settings(max_examples=20)
@given(st.lists(st.tuples(st.lists(WORDS, min_size=1), WORDS), min_size=1))
def test_labelled_sentences_that_were_written_are_read(tmp_path_factory, sentences):
    file = tmp_path_factory.mktemp("tsv") / "train.tsv"
    lines = [f"{' '.join(words)}\t{label}\n" for words, label in sentences]
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


def test_comments_ranges_and_empty_nodes_of_conll_u_are_not_words(write, caplog):
    assert read_columns(write(CONLLU), id=0, form=1, tag=3, columns=4) == [
        (("Vamos", "nos", "a", "el", "mar"), ("VERB", "PRON", "ADP", "DET", "NOUN")),
        (("#",), ("SYM",)),
    ]
    assert caplog.records == []


def test_without_ids_a_word_may_begin_with_a_hash_and_comments_are_counted(write, caplog):
    text = "# a comment\n#\tSYM\n#1\tNOUN\n# two\tNUM\n10 000\tNUM\n"
    expected = [(("#", "#1", "# two", "10 000"), ("SYM", "NOUN", "NUM", "NUM"))]
    file = write(text)
    with caplog.at_level(logging.WARNING):
        assert read_columns(file) == expected
    (record,) = caplog.records
    assert record.getMessage() == (
        f'{file}: took 1 of 5 lines for comments ("#", and no TAB); the first: line 1'
    )
    with pytest.raises(ValueError, match="holds no sentences; expected at least one"):
        read_columns(write("#a\n#b\n"), tag=0)
    assert "took 2 of 2 lines for comments" in caplog.text


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a\tX\nb\n", {}, "line 2: expected 2 columns, separated by TAB, got 1 in 'b'$"),
        ("a\tX\n\nb\tX\tY\n", {}, "line 3: expected 2 columns, separated by TAB, got 3"),
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


@settings(max_examples=20)
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


@pytest.mark.parametrize("bad", ["refuse", "skip"])
def test_unequal_numbers_of_lines_are_an_error(bad, write):
    german, english = write("a\nb\nc\n", "train.de"), write("x\ny\n", "train.en")
    with pytest.raises(ValueError, match=r"\.de has 3 lines but .*train\.en has 2; expected"):
        read_parallel(german, english, bad=bad)


def test_an_empty_line_is_named_with_its_file(write, caplog):
    german, english = write("a\nb\n\nd\n", "train.de"), write("w\n \ny\nz\n", "train.en")
    for files in ((german, english), (english, german)):
        with pytest.raises(ValueError, match=r"train\.en, line 2: the line is empty; expected"):
            read_parallel(*files)
    assert read_parallel(german, english, bad="skip") == [("a", "w"), ("d", "z")]
    assert "train.de: skipped 2 of 4 pairs; the first: " in caplog.text


# Tables -------------------------------------------------------------------------------------------


def test_chosen_columns_are_read_in_the_order_asked_for_with_their_dates(write):
    series = read_csv(write(TABLE), ("y", "x"))
    assert series.names == ("y", "x")
    np.testing.assert_array_equal(series.values, [[-2, 1.5], [3, 20], [4, 0]])
    assert series.values.dtype == np.float64
    assert series.dates == ("2012-01-01", "2012-01-02", "2012-01-03")


def test_all_columns_but_the_dates_are_read_and_the_dates_may_have_another_name(write):
    rows = "1,Monday,2\n3,Tuesday,4\n"
    series = read_csv(write("a,day,b\n" + rows), dates="day")
    assert (series.names, series.dates) == (("a", "b"), ("Monday", "Tuesday"))
    np.testing.assert_array_equal(series.values, [[1, 2], [3, 4]])
    assert read_csv(write("a,b\n1,2\n")).dates == ()


def test_quoted_cells_may_hold_commas(write):
    series = read_csv(write('date,"x, in m"\n"Monday, 1","7"\n'))
    assert (series.names, series.dates) == (("x, in m",), ("Monday, 1",))
    assert series.values.tolist() == [[7.0]]


@pytest.mark.parametrize("cell", ["", "NA", "nan", "NaN", "inf", "-inf", "1,5", "1_000", "1e999"])
@pytest.mark.parametrize("bad", ["refuse", "interpolate", "skip"])
def test_a_cell_without_a_finite_number_is_an_error_filled_or_skipped(cell, bad, write):
    text = f'date,x,y\nd1,1,10\nd2,"{cell}",20\nd3,4,30\n'
    if bad == "refuse":
        with pytest.raises(
            ValueError, match=r"data\.txt, line 3: column 'x': expected a finite number"
        ):
            read_csv(write(text))
        return
    series = read_csv(write(text), bad=bad)
    filled = [[1, 10], [2.5, 20], [4, 30]] if bad == "interpolate" else [[1, 10], [4, 30]]
    assert series.values.tolist() == filled
    assert series.dates == (("d1", "d2", "d3") if bad == "interpolate" else ("d1", "d3"))


def test_interpolation_is_a_line_between_good_values_and_constant_at_the_ends(write, caplog):
    text = "x,y\n,1\n2,\n,\n,\n8,9\n,10\n"
    series = read_csv(write(text), bad="interpolate")
    np.testing.assert_allclose(
        series.values, [[2, 1], [2, 3], [4, 5], [6, 7], [8, 9], [8, 10]], rtol=1e-15
    )
    assert "interpolated 7 of 12 values; the first: " in caplog.text
    assert "line 2: column 'x'" in caplog.text


def test_skipping_leaves_out_whole_rows_and_says_how_many(write, caplog):
    series = read_csv(write("x,y\n1,2\n,4\n5\n7,8\n\n"), bad="skip")
    np.testing.assert_array_equal(series.values, [[1, 2], [7, 8]])
    assert "skipped 3 of 5 rows; the first: " in caplog.text


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("x,y\n1,2\n3\n", {}, "line 3: expected 2 columns, separated by commas, got 1 in '3'$"),
        ("x,y\n1,2\n3,4,5\n", {}, "line 3: expected 2 columns, .*, got 3 in '3,4,5'$"),
        ("x\n1\n\n", {}, "line 3: expected 1 columns, separated by commas, got an empty line$"),
        ("x,y,z\n \n", {}, "line 2: expected 3 columns, separated by commas, got an empty line$"),
        ("x,y\n,,\n", {}, "line 2: expected 2 columns, .*, got 3 in ',,'$"),
        ("date;x\nd1;1.5\n", {}, "line 2: column 'date;x': expected a finite .*, got 'd1;1.5'$"),
        ("date;x\nd1;1,5\n", {}, "line 2: expected 1 columns, .*, got 2 in 'd1;1,5'$"),
        ("date\tx\nd1\t1\n", {"columns": ("x",)}, r"columns: expected one of 'date\\tx', got 'x'"),
        (
            "x,y\r1,2\r",
            {},
            r"line 1: .* \(new-line character .*; expected .* lines that end with LF",
        ),
        ("x,y\n1,2\r3,4\n", {}, "line 2: the cells cannot be separated"),
        ("\nx,y\n1,2\n", {}, "line 1: the line is empty; expected a first line with the names of "),
        ("\ufeff\nx\n1\n", {}, "line 1: the line is empty; expected a first line"),
        (" \r\nx\r\n", {}, "line 1: the line is empty; expected a first line"),
        ("date\nz\n", {}, "line 1: expected a column of numbers beside the dates, got"),
        ("x,y\n1,2\n3\n", {"bad": "interpolate"}, "line 3: expected 2 columns"),
        ('x\n1\n"2\n', {}, "line 3: the cells cannot be separated"),
        ("1,2\n3,4\n", {}, "line 1: '1' is a number; expected a first line of .* names"),
        ("x,x\n3,4\n", {}, "line 1: expected distinct names of columns"),
        ("x,y\n", {}, "holds no rows; expected at least one"),
        ("x,y\n,1\nz,2\n", {"bad": "interpolate"}, "column 'x' has no number to interpolate"),
        ("x\nz\n", {"bad": "interpolate"}, "none of the 1 values can be read"),
        ("x\nz\n", {"bad": "skip"}, "none of the 1 rows can be read; the first: .*line 2"),
        ("x\n1\n", {"columns": ()}, r"columns: expected one name or more, each once, got \(\)"),
        (
            "a,b\n1,2\n",
            {"columns": ["a", "b", "a"]},
            r"^read_csv: columns: expected one name or more, each once, got \('a', 'b', 'a'\)$",
        ),
        ("x\n1\n", {"columns": ("y",)}, "read_csv: columns: expected one of 'x', got 'y'"),
        ("x\n1\n", {"columns": "x"}, r"columns: expected names, such as \('x',\), got one"),
        ("x\n1\n", {"dates": "day"}, "read_csv: dates: expected one of 'x', got 'day'"),
        ("x\n1\n", {"bad": "ignore"}, "'refuse', 'interpolate', 'skip', got 'ignore'"),
    ],
)
def test_a_bad_table_is_named_by_line_and_column(text, options, message, write):
    with pytest.raises(ValueError, match=message):
        read_csv(write(text), **options)


def test_one_column_may_have_a_semicolon_in_its_name(write):
    series = read_csv(write("a;b\n1\n2\n"))
    assert (series.names, series.values.tolist()) == (("a;b",), [[1], [2]])


@settings(max_examples=20)
@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=st.floats()),
    st.data(),
)
def test_numbers_that_were_written_are_read_to_the_last_bit(tmp_path_factory, values, data):
    values = np.where(np.isfinite(values), values, 0)
    file = tmp_path_factory.mktemp("csv") / "series.csv"
    names = [f"column {i}" for i in range(values.shape[1])]
    rows = [names, *[[repr(float(value)) for value in row] for row in values]]
    file.write_text("\n".join(",".join(row) for row in rows) + "\n")
    found = read_csv(file)
    assert found.names == tuple(names)
    np.testing.assert_array_equal(found.values, values)
