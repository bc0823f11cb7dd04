"""Parquet and HDF5 panels, against pandas and h5py over files on disk."""

from __future__ import annotations

import sys

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from panel_chunks import Damage, WatchedFolder, draw, same

from analysis360.errors import DataError
from analysis360.panel.streams import ranked
from analysis360.series import Chunk, Layout

TOKENS = 12


def ids_of(rows):
    return np.random.default_rng(rows).integers(0, 50, (rows, TOKENS))


# --- Parquet ---------------------------------------------------------------------------------------


def parquet(folder, rows=100, group=17, kind=None, *, columns=None, fields=("token_ids",), **how):
    """A chunk of rows of ids, with sources, written with so many rows a group."""
    kind = kind or pa.list_(pa.int32())
    sources = pa.array([f"s{i % 3}" if i % 10 else None for i in range(rows)])
    given = columns or {"token_ids": pa.array(ids_of(rows).tolist(), kind)}
    table = pa.table({"pad": pa.array(["x" * 500] * rows), "source": sources, **given})
    pq.write_table(table, folder / "rows.parquet", row_group_size=group)
    place = WatchedFolder(folder, **{key: how.pop(key) for key in ("guarded", "damage") if key in how})
    return Chunk(
        "rows", 0, place, ("rows.parquet",), how.pop("role", "train"), Layout("parquet", fields), **how
    )


def by_pandas(chunk, n):
    frame = pd.read_parquet(chunk.place.path / "rows.parquet")
    order = ranked(len(frame), 0, chunk.digest)
    named = frame["source"].astype(object).where(frame["source"].notna(), "unknown")
    keep = [i for i in order.tolist() if named[i] != chunk.excluded_source][:n]
    return keep, [frame["token_ids"][i][:4].tolist() for i in keep], named[keep].tolist()


@pytest.mark.parametrize("group", [1, 17, 100, 1000])
@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.int32()), pa.list_(pa.int64(), TOKENS), pa.large_list(pa.uint16())],
    ids=["list", "fixed", "large"],
)
@pytest.mark.parametrize("excluded", [None, "s1", "unknown"])
def test_rows_of_parquet_are_those_of_pandas(tmp_path, group, kind, excluded):
    for n in (0, 30, 500):
        chunk = parquet(tmp_path, 700, group, kind, excluded_source=excluded)
        drawn = draw(chunk, n)
        rows, ids, sources = by_pandas(chunk, n)
        assert drawn.rows.tolist() == rows
        assert drawn.ids.tolist() == ids
        assert drawn.sources.tolist() == sources


def long_parquet(folder, **how):
    """4,000 rows of 200 ids of which only the first four are in the vocabulary, 160 KB a group of 200."""
    ids = np.random.default_rng(0).integers(0, 2**31, (4000, 200))
    ids[:, :4] %= 50
    columns = {"token_ids": pa.array(ids.tolist(), pa.list_(pa.int32())), "other": pa.array(ids.tolist())}
    return parquet(folder, 4000, 200, columns=columns, **how)


def test_only_row_groups_and_columns_that_are_needed_are_read(tmp_path):
    chunk = long_parquet(tmp_path)
    groups = {row // 200 for row in draw(chunk, 10).rows.tolist()}
    assert 3 < len(groups) < 15
    footer = pq.read_metadata(tmp_path / "rows.parquet")
    needed = [footer.row_group(group).column(at) for group in groups for at in range(footer.num_columns)]
    names = {"source", "token_ids.list.element"}
    size = sum(column.total_compressed_size for column in needed if column.path_in_schema in names)
    assert size < chunk.place.traffic.bytes < 1.02 * size + (1 << 17)
    assert len(chunk.place.calls) < 2 * len(groups) + 6
    assert all(file.closed for file in chunk.place.files)


def test_several_fields_of_parquet_are_joined(tmp_path):
    columns = {name: pa.array([[i, at] for i in range(20)]) for at, name in enumerate("ab")}
    chunk = parquet(tmp_path, 20, columns=columns, fields=("b", "a"))
    drawn = draw(chunk, 20)
    assert drawn.ids.tolist() == [[row, 1, row, 0] for row in drawn.rows.tolist()]


def test_canaries_of_parquet_are_all_taken_in_file_order(tmp_path):
    assert draw(parquet(tmp_path, role="canary"), 1).rows.tolist() == list(range(100))


def test_damaged_parquet_on_an_unguarded_connection_is_read_again(tmp_path):
    right = draw(long_parquet(tmp_path), 50)
    chunk = long_parquet(tmp_path, guarded=False, damage=Damage(0.3))
    assert same(draw(chunk, 50), right)
    assert chunk.place.damage.times


def with_row_7(value, kind=None):
    ids = ids_of(20).tolist()
    ids[7] = value
    return {"token_ids": pa.array(ids, kind)}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"ids": pa.array([[1]] * 20)}, "expected columns token_ids; found pad, source, ids"),
        ({"token_ids": pa.array([1] * 20)}, "column token_ids: expected lists of ids, found int64"),
        (with_row_7(None), "row 7: expected ids, found null"),
        (with_row_7([1, 2, None, 4]), "row 7: id None at position 2 is not an integer"),
        (with_row_7([1, 2, 3]), "row 7: expected at least 4 ids"),
        (with_row_7([1, 2, 3, 50]), "row 7: id 50 at position 3; the vocabulary has 50 ids"),
        ({"token_ids": pa.array([[1.0] * 4] * 20)}, "id 1.0 at position 0 is not an integer"),
    ],
)
def test_parquet_that_does_not_fit_is_refused(tmp_path, columns, expected):
    chunk = parquet(tmp_path, 20, columns=columns)
    with pytest.raises(DataError, match=expected) as caught:
        draw(chunk, 20)
    assert str(caught.value).startswith(chunk.where)


def broken(folder, name, layout, **how):
    (folder / name).write_bytes(b"PAR1 and no more of it, nor of anything else")
    return Chunk("rows", 0, WatchedFolder(folder, **how), (name,), "train", layout)


def test_what_is_no_parquet_is_refused(tmp_path):
    with pytest.raises(DataError, match="no readable Parquet file"):
        draw(broken(tmp_path, "rows.parquet", Layout("parquet")))


def fails(data, span):
    raise DataError("the server has gone away")


# --- HDF5 ------------------------------------------------------------------------------------------


def hdf5(folder, ids, *, dataset="data", select=None, role="train", guarded=True, damage=None, **storage):
    with h5py.File(folder / "rows.h5", "w") as file:
        file.create_dataset("group/data" if "/" in dataset else "data", data=ids, **storage)
    place = WatchedFolder(folder, guarded=guarded, damage=damage or (lambda data, span: data))
    return Chunk("rows", 0, place, ("rows.h5",), role, Layout("hdf5", dataset=dataset, select=select))


STORAGE = {
    "contiguous": {},
    "chunked": {"chunks": True},
    "compressed": {"chunks": (8, 5), "compression": "gzip"},
    "a chunk a row": {"chunks": (1, TOKENS), "compression": "gzip", "shuffle": True},
}


@pytest.mark.parametrize("storage", STORAGE.values(), ids=STORAGE)
@pytest.mark.parametrize("dataset", ["data", "/group/data"])
def test_rows_of_hdf5_are_those_of_the_array(tmp_path, storage, dataset):
    ids = ids_of(300)
    for n in (0, 40, 500):
        chunk = hdf5(tmp_path, ids, dataset=dataset, **storage)
        drawn = draw(chunk, n)
        assert drawn.rows.tolist() == ranked(300, 0, chunk.digest)[:n].tolist()
        assert drawn.ids.tolist() == ids[drawn.rows, :4].tolist()
        assert set(drawn.sources.tolist()) <= {"unknown"}


@pytest.mark.parametrize("chunks", [None, (4, 1, TOKENS), (4, 3, 5)])
def test_one_of_several_arrays_is_selected(tmp_path, chunks):
    ids = np.stack([ids_of(50), ids_of(50) + 60, ids_of(50)[:, ::-1]], axis=1)
    for select in (0, 2):
        drawn = draw(hdf5(tmp_path, ids, select=select, chunks=chunks), 50)
        assert drawn.ids.tolist() == ids[drawn.rows, select, :4].tolist()


def test_only_the_ids_asked_for_are_read_of_a_contiguous_dataset(tmp_path):
    chunk = hdf5(tmp_path, ids_of(50_000).astype("int32"))
    draw(chunk, 300)
    assert chunk.place.traffic.bytes < 300 * 4 * 4 + (1 << 18)
    assert len(chunk.place.calls) < 12
    assert all(file.closed for file in chunk.place.files)


def test_canaries_of_hdf5_are_all_taken_in_file_order(tmp_path):
    assert draw(hdf5(tmp_path, ids_of(30), role="canary"), 1).rows.tolist() == list(range(30))


def test_damaged_hdf5_on_an_unguarded_connection_is_read_again(tmp_path):
    right = draw(hdf5(tmp_path, ids_of(300), chunks=(8, 5)), 50)
    chunk = hdf5(tmp_path, ids_of(300), chunks=(8, 5), guarded=False, damage=Damage(0.3))
    assert same(draw(chunk, 50), right)
    assert chunk.place.damage.times


def test_ids_outside_the_vocabulary_are_refused_by_row(tmp_path):
    ids = ids_of(20)
    ids[7, 3] = -1
    with pytest.raises(DataError, match="row 7: id -1 at position 3"):
        draw(hdf5(tmp_path, ids), 20)


@pytest.mark.parametrize(
    ("ids", "layout", "expected"),
    [
        (ids_of(20), {"dataset": "ids"}, "dataset ids is not in the file .*; it holds data"),
        (ids_of(20), {"dataset": "data/more"}, "is not in the file"),
        (ids_of(20), {"dataset": "/"}, "is not an array of integers"),
        (ids_of(20).astype("float32"), {}, "is not an array of integers"),
        (ids_of(20), {"select": 0}, r"expected shape \[rows, more than 0, tokens\], found \[20, 12\]"),
        (ids_of(20)[:, None], {}, r"expected shape \[rows, tokens\], found \[20, 1, 12\]"),
        (ids_of(20)[:, None], {"select": 1}, r"more than 1, tokens\], found \[20, 1, 12\]"),
        (ids_of(20)[:, None], {"select": -1}, "expected shape"),
        (ids_of(20)[:, :3], {}, "at least 4 ids a row; rows have 3"),
    ],
)
def test_hdf5_that_does_not_fit_is_refused(tmp_path, ids, layout, expected):
    hdf5(tmp_path, ids)
    layout = Layout("hdf5", **{"dataset": "data"} | layout)
    chunk = Chunk("rows", 0, WatchedFolder(tmp_path), ("rows.h5",), "train", layout)
    with pytest.raises(DataError, match=expected) as caught:
        draw(chunk, 20)
    assert str(caught.value).startswith(chunk.where)


def test_the_dataset_must_be_named(tmp_path):
    hdf5(tmp_path, ids_of(20))
    chunk = Chunk("rows", 0, WatchedFolder(tmp_path), ("rows.h5",), "train", Layout("hdf5"))
    with pytest.raises(DataError, match="needs the name of the dataset; it holds data"):
        draw(chunk)


def test_links_out_of_the_file_are_not_followed(tmp_path):
    hdf5(tmp_path, ids_of(20))
    (tmp_path / "rows.h5").rename(tmp_path / "elsewhere.h5")
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["data"] = h5py.ExternalLink(str(tmp_path / "elsewhere.h5"), "data")
        file["group"] = h5py.ExternalLink(str(tmp_path / "elsewhere.h5"), "/")
        virtual = h5py.VirtualLayout((20, TOKENS), "int64")
        virtual[:] = h5py.VirtualSource(str(tmp_path / "elsewhere.h5"), "data", (20, TOKENS))
        file.create_virtual_dataset("virtual", virtual)
        file.create_dataset("external", (2, 4), "int32", external=[(str(tmp_path / "elsewhere.h5"), 0, 32)])
    for name in ("data", "group/data", "virtual", "external"):
        layout = Layout("hdf5", dataset=name)
        with pytest.raises(DataError, match=f"dataset {name} is not"):
            draw(Chunk("rows", 0, WatchedFolder(tmp_path), ("rows.h5",), "train", layout))


def test_what_is_no_hdf5_is_refused(tmp_path):
    with pytest.raises(DataError, match="no readable HDF5 file"):
        draw(broken(tmp_path, "rows.h5", Layout("hdf5", dataset="data")))


def test_a_missing_h5py_is_named_with_the_way_to_get_it(tmp_path, monkeypatch):
    chunk = hdf5(tmp_path, ids_of(20))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"reading HDF5 needs h5py: pip install 'analysis360\[hdf5\]'"):
        draw(chunk)


@pytest.mark.parametrize("kind", ["parquet", "hdf5"])
def test_what_goes_wrong_while_reading_is_passed_on(tmp_path, kind):
    chunk = broken(tmp_path, "rows", Layout(kind, dataset="data"), damage=fails)
    with pytest.raises(DataError, match=r"^the server has gone away$"):
        draw(chunk)


@pytest.mark.parametrize("kind", ["parquet", "hdf5"])
def test_what_goes_wrong_late_is_passed_on(tmp_path, kind):
    made = long_parquet(tmp_path) if kind == "parquet" else hdf5(tmp_path, ids_of(5000), chunks=(8, 5))
    calls = iter(range(10_000))
    made.place.damage = lambda data, span: fails(data, span) if next(calls) > 6 else data
    with pytest.raises(DataError, match=r"^the server has gone away$"):
        draw(made, 500)
