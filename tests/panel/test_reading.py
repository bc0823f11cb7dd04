"""Bytes as a file, bytes read twice, bytes in pieces: the same bytes."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_chunks import Damage, Watched, WatchedFolder

from analysis360.errors import DataError
from analysis360.panel import reading
from analysis360.panel.reading import Seekable, Twice, certain, whole

quick = settings(deadline=None, database=None, max_examples=60)
CONTENT = bytes(i * 7 % 251 for i in range(1000))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("f")
    (path / "file").write_bytes(CONTENT)
    (path / "empty").write_bytes(b"")
    return path


def test_a_file_that_does_not_say_is_guarded(folder):
    for place, kind in ((WatchedFolder(folder), Watched), (WatchedFolder(folder, guarded=False), Twice)):
        assert type(certain(place.open("file"))) is kind
    plain = super(WatchedFolder, place).open("file")
    assert certain(plain) is plain


spans = st.lists(st.tuples(st.integers(0, 999), st.integers(1, 50)), max_size=20)


@quick
@given(spans, st.integers(0, 100))
def test_what_is_read_twice_is_right(folder, spans, seed):
    place = WatchedFolder(folder, guarded=False, damage=Damage(0.15, seed))
    asked = [(start, min(start + length, 1000)) for start, length in spans]
    assert Twice(place.open("file")).read(asked) == [CONTENT[a:b] for a, b in asked]


def test_what_never_agrees_is_refused_by_byte(folder):
    place = WatchedFolder(folder, damage=lambda data, span: os.urandom(len(data)) if span[0] == 40 else data)
    with pytest.raises(DataError, match="file byte 40: read 8 times, never twice alike"):
        Twice(place.open("file")).read([(0, 9), (40, 60)])
    assert [len(call) for call in place.calls] == [4] + [2] * 7, "what agreed is not read again"


@quick
@given(
    st.lists(st.tuples(st.integers(0, 1100), st.integers(0, 300), st.booleans()), max_size=20),
    st.lists(st.tuples(st.integers(0, 990), st.integers(1, 200)), max_size=6),
    st.sampled_from([1, 7, 64, 5000]),
)
def test_a_file_object_is_the_file(folder, moves, held, block):
    plain = io.BytesIO(CONTENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BLOCK", block)
        patch.setattr(reading, "BLOCKS", 3)
        patch.setattr(reading, "PIECE", 37)
        file = Seekable(WatchedFolder(folder).open("file"))
        file.hold([(start, min(start + length, 1000)) for start, length in held])
        for position, length, from_end in moves:
            how = (-min(position, 1000), io.SEEK_END) if from_end else (position, io.SEEK_SET)
            assert file.seek(*how) == plain.seek(*how)
            assert file.read(length) == plain.read(length)
            assert file.tell() == plain.tell()
        assert [file.seekable(), file.readable(), file.writable()] == [True, True, False]


@pytest.mark.parametrize("piece", [1, 3, 250, 999, 1000, 4000])
def test_a_whole_file_is_all_of_it(folder, piece, monkeypatch):
    monkeypatch.setattr(reading, "PIECE", piece)
    assert b"".join(whole(WatchedFolder(folder).open("file"))) == CONTENT
    assert list(whole(WatchedFolder(folder).open("empty"))) == []
