"""Memory is bounded by the longest record, not by the file."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEGABYTES = 40
MEASURE = """
import re, sys
from pathlib import Path
from data_prep.sources.config import SourceConfig
from data_prep.sources.scan import read

def peak():  # not getrusage: it begins with the peak of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

def count(path):
    return sum(1 for _ in read(SourceConfig(path=path)))

count(sys.argv[1])  # what reading anything takes is not what is measured
before = peak()
rows = count(sys.argv[2])
print(rows, (peak() - before) // 1024)
"""
ROW = {"instruction": "question " * 50, "output": "answer ü " * 50}
LINE = json.dumps(ROW, ensure_ascii=False).encode()
ROWS = MEGABYTES * 2**20 // len(LINE)


def content(name: str, rows: int) -> bytes:
    match name.removesuffix(".gz"):
        case "r.json":
            return b"[" + b",\n".join([LINE] * rows) + b"]"
        case "r.csv":
            row = f'"{ROW["instruction"]}","{ROW["output"]}"\n'.encode()
            return b"instruction,output\n" + row * rows
        case _:
            return (LINE + b"\n") * rows


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak")
@pytest.mark.parametrize("name", ["r.json", "r.jsonl", "r.jsonl.gz", "r.csv", "r.txt"])
def test_a_large_file_takes_no_more_memory_than_a_small_one(tmp_path: Path, name: str):
    small, large = tmp_path / "small", tmp_path / "large"
    for folder, rows in ((small, 10), (large, ROWS)):
        folder.mkdir()
        data = content(name, rows)
        (folder / name).write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
    arguments = [sys.executable, "-c", MEASURE, str(small / name), str(large / name)]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    found, grown = map(int, done.stdout.split())
    assert found == ROWS
    assert grown < MEGABYTES // 4
