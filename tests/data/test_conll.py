from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from mtl_nlp.data.conll import read_conll, read_conllu, read_words
from mtl_nlp.errors import DataError

REPOSITORY = Path(__file__).parents[2]
REAL_DATA = REPOSITORY.parent / "shared" / "data"


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "file.conll"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def conll(folder: Path, content: str | bytes) -> list[dict]:
    return list(read_conll(write(folder, content), ["tokens", "ner"]))


def conllu(folder: Path, *lines: str) -> list[dict]:
    return list(read_conllu(write(folder, "\n".join(lines))))


def word(number: str, form: str, tag: str = "X") -> str:
    return "\t".join([number, form, "_", tag, *"______"])


@pytest.mark.parametrize(
    "content",
    [
        "Ada\tB-PER\nruns\tO\n\nHi\tO\n",
        "Ada B-PER\nruns   O\n\nHi O\n",
        "Ada\tB-PER\r\nruns\tO\r\n\r\nHi\tO\r\n",
        "\ufeffAda\tB-PER\nruns\tO\n\nHi\tO\n",
        "Ada\tB-PER\nruns\tO\n\nHi\tO",
        "\n\nAda\tB-PER\nruns\tO\n \t\n\n\nHi\tO\n\n\n",
        "-DOCSTART-\tO\n\nAda\tB-PER\nruns\tO\n\nHi\tO\n",
        "-DOCSTART- -X- -X- O\nAda\tB-PER\nruns\tO\n-DOCSTART-\nHi\tO\n",
        "Ada\tB-PER\rruns\tO\r\rHi\tO\r",
        gzip.compress(b"Ada\tB-PER\nruns\tO\n\nHi\tO\n", mtime=0),
        lzma.compress(b"Ada\tB-PER\rruns\tO\r\rHi\tO\r"),
    ],
    ids=[
        *("tabs", "blanks", "CRLF", "BOM", "no last newline", "many blank lines", "DOCSTART", "DOCSTART without lines"),
        *("CR", "gzip", "xz"),
    ],
)
def test_every_form_of_column_file_reads_the_same(tmp_path, content):
    assert conll(tmp_path, content) == [
        {"tokens": ["Ada", "runs"], "ner": ["B-PER", "O"]},
        {"tokens": ["Hi"], "ner": ["O"]},
    ]


def test_comments_before_the_first_word_are_columns_of_the_sentence(tmp_path):
    text = "# topic = travel and more\n# no key\n#id =  7 \nAda\tB-PER\n\nHi\tO\n"
    assert conll(tmp_path, text) == [
        {"topic": "travel and more", "id": "7", "tokens": ["Ada"], "ner": ["B-PER"]},
        {"tokens": ["Hi"], "ner": ["O"]},
    ]


@pytest.mark.parametrize("hashtag", ["#love", "#a=b", "#", "##", "#1"])
def test_hashtags_are_words_at_any_position(tmp_path, hashtag):
    (sentence,) = conll(tmp_path, f"{hashtag}\tO\nis\tO\n{hashtag}\tO\n")
    assert sentence["tokens"] == [hashtag, "is", hashtag]


def test_only_spaces_and_tabs_separate_columns(tmp_path):
    (sentence,) = conll(tmp_path, "3\u00a0000\u3000m NUM\n\u200b SYM\n")
    assert sentence["tokens"] == ["3\u00a0000\u3000m", "\u200b"]
    (sentence,) = conll(tmp_path, "New York\tB-LOC\n\u00a0\tO\n")
    assert sentence["tokens"] == ["New York", "\u00a0"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# topic = x\nAda\tO\nlives\n", r"file\.conll, line 3: expected 2 columns \(tokens, ner\), found 1: 'lives'"),
        ("Ada\tO\n\n\nin\tO\tO\n", "line 4: expected 2 columns .* found 3"),
        ("Ada\tO\n# topic = x\n", "line 2: expected 2 columns .* found 4"),
    ],
)
def test_broken_line_is_named_with_file_and_number(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        conll(tmp_path, text)


def test_empty_cell_of_a_label_column_is_named_with_file_and_number(tmp_path):
    path = write(tmp_path, "Ada\tB-PER\nruns\t \n")
    assert list(read_conll(path, ["tokens", "ner"])) == [{"tokens": ["Ada", "runs"], "ner": ["B-PER", ""]}]
    with pytest.raises(DataError, match=r"file\.conll, line 2: the cell in column 'ner' is empty\. Write a tag"):
        list(read_conll(path, ["tokens", "ner"], filled=["ner"]))
    path = write(tmp_path, word("1", "Ada", ""))
    with pytest.raises(DataError, match=r"file\.conll, line 1: the cell in column 'upos' is empty"):
        list(read_conllu(path, filled=["upos"]))


def test_blanks_around_the_cells_of_tab_separated_columns_do_not_matter(tmp_path):
    assert conll(tmp_path, "Ada \t B-PER \nNew York\tO\n") == [{"tokens": ["Ada", "New York"], "ner": ["B-PER", "O"]}]


def test_special_blanks_belong_to_words_and_not_to_tags(tmp_path):
    path = write(tmp_path, "Ada\u00a0\tB-PER\u00a0\nruns\t\u2003O\n")
    assert list(read_conll(path, ["tokens", "ner"], filled=["ner"])) == [
        {"tokens": ["Ada\u00a0", "runs"], "ner": ["B-PER", "O"]}
    ]
    (sentence,) = read_conllu(write(tmp_path, word("1", "Ada", " PROPN ")), filled=["upos"])
    assert sentence["upos"] == ["PROPN"]


def test_underscore_in_a_treebank_means_a_word_without_annotation_and_no_features(tmp_path):
    (sentence,) = conllu(tmp_path, word("1", "_", "_"), word("2", "Ada", "PROPN"))
    assert sentence["upos"] == [None, "PROPN"]
    assert sentence["xpos"] == sentence["deprel"] == [None, None]
    assert sentence["tokens"] == ["_", "Ada"]
    assert sentence["feats"] == sentence["misc"] == ["_", "_"]
    assert sentence["lemma"] == ["_", None]
    assert sentence["deps"] == [None, None]


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path):
    content = b"word\tO\n" * 3000 + "café\tO\n".encode("latin-1")
    with pytest.raises(DataError, match=r"file\.conll, line 3001: not UTF-8: .* byte 3"):
        conll(tmp_path, content)


def test_multi_word_ranges_and_empty_nodes_are_skipped(tmp_path):
    lines = [
        "# sent_id = 1",
        "#newdoc",
        word("1-2", "don't"),
        word("1", "do", "AUX"),
        word("2", "n't", "PART"),
        word("2.1", "gap"),
        word("3", "#go", "VERB"),
        "",
        word("1", "Hi", "INTJ"),
    ]
    first, second = conllu(tmp_path, *lines)
    assert (first["tokens"], first["upos"]) == (["do", "n't", "#go"], ["AUX", "PART", "VERB"])
    assert first["sent_id"] == "1"
    assert second["tokens"] == ["Hi"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2\tHi\t_", r"line 2: expected 10 tab-separated columns, found 3"),
        (word("two", "Hi"), r"line 2: expected a word's id, found 'two'"),
        ("# topic = x", r"line 2: expected 10 tab-separated columns"),
    ],
)
def test_broken_line_of_a_treebank_is_named(tmp_path, line, message):
    with pytest.raises(DataError, match=message):
        conllu(tmp_path, word("1", "Ada"), line)


def test_words_are_read_regardless_of_the_other_columns(tmp_path):
    path = write(tmp_path, "# topic = x\nAda\tO\tO\nruns\n\n-DOCSTART-\nHi there\n")
    assert [words for _, words in read_words(path)] == [["Ada", "runs"], ["Hi"]]


@pytest.mark.skipif(not REAL_DATA.exists(), reason="needs ../shared/data")
def test_real_treebank_has_the_words_of_its_statistics():
    sentences = list(read_conllu(REAL_DATA / "ud_english_ewt" / "en_ewt-ud-dev.conllu"))
    assert len(sentences) == 2001
    assert sum(len(sentence["tokens"]) for sentence in sentences) == 25_147
    assert len({tag for sentence in sentences for tag in sentence["upos"]}) == 17


@pytest.mark.skipif(not REAL_DATA.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("split", "sentences", "words", "people"),
    [("train", 3394, 62_730, 660), ("dev", 1009, 15_733, 470), ("test", 1287, 23_394, 429)],
)
def test_real_tweets_have_the_words_of_their_source(split, sentences, words, people):
    rows = list(read_conll(REAL_DATA / "wnut17" / f"{split}.conll", ["tokens", "ner"]))
    assert (len(rows), sum(len(row["tokens"]) for row in rows)) == (sentences, words)
    assert sum(row["ner"].count("B-person") for row in rows) == people


def test_single_hash_with_columns_is_a_word(tmp_path):
    (tmp_path / "a.conll").write_text("# topic = sport\n# O\n1 O\nfan O\n\n# made by hand\ngo O\n")
    first, second = read_conll(tmp_path / "a.conll", ["tokens", "ner"])
    assert (first["tokens"], first["topic"]) == (["#", "1", "fan"], "sport")
    assert second["tokens"] == ["go"]
