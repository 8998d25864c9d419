from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_datasets import TEXT, load, write

from mtl_nlp.data.faults import explain, flaw_of_files
from mtl_nlp.errors import DataError
from mtl_nlp.recipe.sections import DatasetRecipe

LABELS = {"topic": "y"}


def table(path: Path) -> bytes:
    pq.write_table(pa.table({"text": ["one", "two"] * 99, "y": ["a", "b"] * 99}), path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("d.parquet", lambda content: content[:-40]),
        ("d.parquet", lambda content: content[:30] + bytes(40) + content[70:]),
        ("d.parquet", lambda _: b"text,y\none,a\n"),
        ("d.parquet", lambda _: b""),
        ("d.arrow", lambda content: content),
        ("d.arrow", lambda _: b"junk"),
    ],
)
def test_damaged_table_is_named(tmp_path, name, damage):
    path = tmp_path / name
    path.write_bytes(damage(table(path)))
    with pytest.raises(DataError, match=rf"/{name}: the file is damaged or not a file of the format \w+: .*[^.]\.$"):
        load(tmp_path, TEXT, LABELS, path=name)


def test_intact_table_has_no_flaw(tmp_path):
    table(tmp_path / "d.parquet")
    assert flaw_of_files("parquet", [str(tmp_path / "d.parquet")], {}) is None
    assert len(load(tmp_path, TEXT, LABELS, path="d.parquet").splits["train"]) == 198


def test_loading_script_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "ds").mkdir()
    write(tmp_path / "ds/ds.py", "import datasets")
    with pytest.raises(
        DataError, match=r"^datasets\.d\.path: .*/ds has a loading script.* such as `path: .*/ds/\*\.csv`"
    ):
        load(tmp_path, TEXT, LABELS, path="./ds")
    recipe = DatasetRecipe(path="owner/name", inputs=TEXT, labels=LABELS)
    error = RuntimeError("Dataset scripts are no longer supported, but found name.py")
    message = str(explain("d", recipe, error, "owner/name", [], {}))
    assert message.endswith(
        "Set `revision: refs/convert/parquet`, the branch in which the Hub keeps the rows as Parquet files."
    )


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        ("webdataset", r"^datasets\.d \(.*/d\.bin\): cannot be loaded: ReadError: [^.]*\.$"),
        ("arrow", r"/d\.bin: the file is damaged or not a file of the format arrow"),
    ],
)
def test_files_of_any_builder_are_named(tmp_path, builder, message):
    write(tmp_path / "d.bin", "junk")
    with pytest.raises(DataError, match=message):
        load(tmp_path, TEXT, LABELS, path=builder, data_files="d.bin")


def test_missing_package_and_encoding_are_named():
    recipe = DatasetRecipe(path="hdf5", data_files="d.h5", inputs=TEXT, labels=LABELS)
    error = ModuleNotFoundError("No module named 'h5py'", name="h5py")
    files = [f"{number}.h5" for number in range(5)]
    assert str(explain("d", recipe, error, "hdf5", files, {})) == (
        "datasets.d (0.h5, 1.h5, 2.h5 and 2 more): cannot be loaded: ModuleNotFoundError: No module named 'h5py'. "
        "Install the package: pip install h5py."
    )
    flaw = UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "unexpected end of data")
    assert str(explain("d", recipe, flaw, "text", [], {})).endswith("Set `encoding`, such as `encoding: cp1252`.")
