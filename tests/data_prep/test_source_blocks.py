"""Compressed files, damaged ones, and encodings."""

import codecs
import gzip
import json
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from source_files import ROWS, compressed, places, read_all, save, texts, values

from data_prep.errors import DataError
from data_prep.sources.config import SourceConfig
from data_prep.sources.scan import scan

NAMES = [f"r.{kind}.{end}" for kind in ("json", "jsonl", "csv", "tsv") for end in ("gz", "zst")]
ENDS = [".gz", ".zst"]


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_text_may_be_compressed(tmp_path: Path, name: str):
    path = save(tmp_path / name, ROWS)
    assert values(path) == ROWS
    assert all(place.startswith(str(path)) for place in places(path))


@pytest.mark.parametrize("end", ENDS)
def test_parquet_is_not_compressed_once_more(tmp_path: Path, end: str):
    (tmp_path / f"r.parquet{end}").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="Parquet is compressed in itself; unpack the file first"):
        read_all(tmp_path / f"r.parquet{end}")


@pytest.mark.parametrize("end", ENDS)
def test_compressed_parts_joined_are_one_file(tmp_path: Path, end: str):
    path = tmp_path / f"r.txt{end}"
    path.write_bytes(compressed(path, b"one\ntw") + compressed(path, b"o\n"))
    assert texts(path) == ["one", "two"]


ROW_COUNT = 200_000
FEWER = 180_000  # of a zstd file with a wrong checksum the last block cannot be had


def many(path: Path) -> bytes:
    """Many lines, compressed, with a checksum at the end."""
    lines = b"".join(b'{"n": %d}\n' % number for number in range(ROW_COUNT))
    if path.suffix == ".gz":
        return gzip.compress(lines)
    return zstd.compress(lines, options={zstd.CompressionParameter.checksum_flag: 1})


def what_is_read(path: Path) -> tuple[list[str], str]:
    found: list[str] = []
    with pytest.raises(DataError) as caught:
        found += (raw.where for raw in scan(SourceConfig(path=str(path))))
    return found, str(caught.value)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    ("damage", "reason", "least"),
    [
        (lambda content: content[:-2], "it ends too early", ROW_COUNT),
        (lambda content: content[: len(content) // 2], "it ends too early", ROW_COUNT // 3),
        (lambda content: content + b"trailing garbage", "", ROW_COUNT),
        (lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:], "", FEWER),
    ],
)
def test_a_damaged_file_is_an_error_that_says_how_far_it_was_read(
    tmp_path, end, damage, reason, least
):
    path = tmp_path / f"r.jsonl{end}"
    path.write_bytes(damage(many(path)))
    found, said = what_is_read(path)
    kind = "gzip" if end == ".gz" else "zstd"
    assert said.startswith(f"{path}: damaged {kind} data: {reason}")
    assert f"; rows up to {found[-1]} could be read. Fetch or write the file again" in said
    assert said.endswith(f"{kind} -dc OLD > NEW.")
    assert len(found) >= least


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"\x28\xb5"])
def test_a_file_cut_at_its_beginning_is_damaged(tmp_path: Path, end: str, content: bytes):
    path = tmp_path / f"r.jsonl{end}"
    path.write_bytes(content)
    assert "damaged" in what_is_read(path)[1]
    assert "; no row could be read. Fetch or write the file again" in what_is_read(path)[1]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("content", [b'{"a": 1}\n', b"\x28\x8b\x2f\xfd"])
def test_a_file_that_was_never_compressed_wants_another_name(tmp_path, end, content):
    path = tmp_path / f"r.jsonl{end}"
    path.write_bytes(content)
    said = what_is_read(path)[1]
    assert "; no row could be read. If it was never compressed, take the last ending off" in said


def test_what_zstd_skips_may_come_first(tmp_path: Path):
    path = tmp_path / "r.txt.zst"
    skipped = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    path.write_bytes(skipped + compressed(path, b"one\n"))
    assert texts(path) == ["one"]


def test_a_file_packed_with_a_long_window_is_read(tmp_path: Path):
    path = tmp_path / "r.txt.zst"
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 31})
    path.write_bytes(packer.compress(b"one\n") + packer.flush())
    assert texts(path) == ["one"]


@pytest.mark.parametrize("end", ENDS)
def test_a_compressed_file_with_nothing_in_it_has_no_records(tmp_path: Path, end: str):
    path = tmp_path / f"r.jsonl{end}"
    path.write_bytes(compressed(path, b""))
    assert read_all(path) == []


@given(cut=st.integers(0, 10**6), end=st.sampled_from(ENDS))
def test_a_file_cut_anywhere_never_ends_silently(tmp_path_factory, cut, end):
    path = tmp_path_factory.getbasetemp() / f"cut.jsonl{end}"
    content = compressed(path, b'{"a": 1}\n' * 50)
    path.write_bytes(content[: cut % len(content)])
    with pytest.raises(DataError, match=r"damaged (gzip|zstd) data: "):
        read_all(path)


# Encodings.


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("name", ["r.json", "r.jsonl", "r.csv", "r.txt", "r.jsonl.gz"])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, name: str, encoding: str):
    rows = [{"text": "ä"}] if name == "r.txt" else ROWS
    path = save(tmp_path / name, rows)
    content = gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()
    marked = content.decode() if encoding == "utf-8-sig" else "\ufeff" + content.decode()
    path.write_bytes(compressed(path, marked.encode(encoding)))
    assert values(path) == rows


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_characters_without_a_mark_are_refused(tmp_path: Path, encoding: str):
    path = tmp_path / "r.jsonl"
    path.write_bytes('{"a": 1}\n'.encode(encoding))
    name = encoding.replace("-le", "le").replace("-be", "be")
    with pytest.raises(
        DataError, match=f"as in {name} without a byte .*: iconv -f {name} -t utf-8"
    ):
        read_all(path)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 2**18])
def test_wide_characters_that_are_wrong_are_an_error_with_their_place(
    tmp_path: Path, size: int, monkeypatch
):
    monkeypatch.setattr("data_prep.sources.blocks.BLOCK", size)
    path = tmp_path / "r.txt"
    path.write_bytes(codecs.BOM_UTF16_LE + "abc\n".encode("utf-16-le") + b"\x00\xd8x\x00")
    with pytest.raises(DataError, match=r"r\.txt: not UTF-16: .* at byte 10; "):
        read_all(path)


def test_lines_of_another_encoding_are_answered_and_the_others_read(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    lines = ['{"a": "é"}'.encode(code) for code in ("utf-8", "latin-1", "utf-8", "cp437")]
    path.write_bytes(b"\n".join(lines))
    first, latin, third, dos = read_all(path)
    assert first.value == third.value == {"a": "é"}
    assert (latin.where, dos.where) == (f"{path}:2", f"{path}:4")
    assert latin.problem.startswith(
        "not UTF-8: invalid continuation byte at byte 7; a file in Latin"
    )
    assert latin.problem.endswith("iconv -f cp1252 -t utf-8 OLD > NEW")
    assert dos.problem.startswith("not UTF-8: invalid start byte at byte 7; ")


@pytest.mark.parametrize("name", ["r.jsonl", "r.csv", "r.txt"])
def test_a_mark_alone_is_an_empty_file(tmp_path: Path, name: str):
    for mark in (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF32_BE):
        (tmp_path / name).write_bytes(mark)
        assert read_all(tmp_path / name) == []


def test_a_mark_in_the_middle_of_a_file_is_named(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    path.write_text("\ufeff" + json.dumps({"a": 1}) + "\n\ufeff" + json.dumps({"a": 2}))
    first, second = read_all(path)
    assert first.value == {"a": 1}
    assert second.problem.startswith("not JSON: Unexpected UTF-8 byte order mark")
