"""The GPU benchmark of training, tried without a GPU: all of it on a tiny model."""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

SCRIPTS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


def test_both_sides_train_the_same_tokens_to_the_same_loss(tmp_path: Path):
    asked = ["--shape", "tiny", "--repeats", "1", "--steps", "3", "--folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "train_gpu.py"), *asked, "--sides", "llmkit", "trl_packed"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # more threads than work
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["ratios"].keys() == {
        "tokens_per_second_vs_trl_packed",
        "peak_memory_vs_trl_packed",
    }
    assert all(ratio > 0 for ratio in found["ratios"].values())
    assert found["peak_gib"] > 0
    assert all(0 < share < 1 for share in found["fraction_of_matmul_rate"].values())
    ours, theirs = (found["figures"]["sides"][side][0] for side in ("llmkit", "trl_packed"))
    assert ours["tokens"] == theirs["tokens"] == found["figures"]["made"]["tokens"]
    assert ours["trainable_parameters"] == theirs["trainable_parameters"]
    assert len(ours["losses"]) == len(theirs["losses"]) == 3
    assert np.mean(ours["losses"]) == pytest.approx(np.mean(theirs["losses"]), rel=0.01)
    guess = np.log(512)
    assert ours["losses"][0] == pytest.approx(guess, rel=0.1)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("tmp")]


def test_without_a_gpu_the_large_shape_is_refused(monkeypatch: pytest.MonkeyPatch):
    import train_gpu

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"no CUDA GPU.*--shape tiny"):
        train_gpu.refuse_what_cannot_run(argparse.Namespace(shape="mistral-7b"))


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch):
    import train_gpu

    monkeypatch.setattr(train_gpu, "NEEDED", ("torch", "not_installed_here"))
    with pytest.raises(SystemExit, match=r"not installed: not_installed_here.*--wheels"):
        train_gpu.refuse_what_cannot_run(argparse.Namespace(shape="tiny"))


def wheel(folder: Path, tag: str, files: dict[str, str]) -> None:
    with zipfile.ZipFile(folder / f"carried-1.0-{tag}.whl", "w") as file:
        for name, text in files.items():
            file.writestr(name, text)


def test_carried_wheels_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from train_gpu import unpack

    files = {
        "carried_package/__init__.py": "answer = 1",
        "carried-1.0.data/purelib/carried_beside.py": "answer = 2",
        "carried-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n",
    }
    wheel(tmp_path, "py3-none-any", files)
    unpack(tmp_path, tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert importlib.import_module("carried_package").answer == 1
    assert importlib.import_module("carried_beside").answer == 2
    assert importlib.metadata.version("carried") == "1.0"


def test_wheels_of_another_python_are_refused_and_so_is_a_folder_without_any(tmp_path: Path):
    from train_gpu import unpack

    with pytest.raises(SystemExit, match="no wheels there"):
        unpack(tmp_path, tmp_path / "site")
    wheel(tmp_path, "cp39-cp39-win32", {})
    with pytest.raises(SystemExit, match=r"carried-1\.0-cp39.*not for Python 3"):
        unpack(tmp_path, tmp_path / "site")


def test_a_side_without_memory_is_a_figure_and_other_errors_are_errors(
    monkeypatch: pytest.MonkeyPatch,
):
    import gpu_sides
    from train_gpu import ratios

    def fails(error: Exception) -> Any:
        def side(job: Any) -> Any:
            raise error

        monkeypatch.setitem(gpu_sides.SIDES, "trl_packed", side)
        return gpu_sides.figures_of("trl_packed", None)  # type: ignore[arg-type]

    told = fails(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore."))
    assert told == {"out_of_memory": "CUDA out of memory. Tried to allocate 2 GiB."}
    assert "out_of_memory" in fails(RuntimeError("CUDA error: out of memory"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        fails(RuntimeError("shapes differ"))
    ours = {"tokens_per_second": 3.0, "peak_gib": 1.0}
    found = ratios({"llmkit": [ours, ours], "trl_packed": [told, told], "trl_unpacked": [ours, {}]})
    assert found["tokens_per_second_vs_trl_packed"] is None
    assert found["peak_memory_vs_trl_unpacked"] == 1.0


def test_rows_fill_the_packs_that_were_asked_for():
    from random_rows import draw

    rows = draw(vocabulary=512, longest=256, packs=5, seed=0)
    assert len(rows.packs) == 5
    assert sorted(np.concatenate(rows.packs)) == list(range(len(rows.lengths)))
    assert max(rows.lengths[pack].sum() for pack in rows.packs) <= 256
    assert rows.lengths.sum() > 0.9 * 5 * 256
    assert all(mask[-1] and not mask[0] for _, mask in rows.each())


def test_without_numba_rows_are_packed_alike(monkeypatch: pytest.MonkeyPatch):
    from random_rows import _uncompiled

    from data_prep import packing

    monkeypatch.setitem(sys.modules, "numba", _uncompiled())
    spec = importlib.util.spec_from_file_location("packing_uncompiled", packing.__file__)
    plain = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, plain)
    spec.loader.exec_module(plain)
    lengths = np.random.default_rng(1).integers(1, 2049, 300)
    ours, theirs = packing.pack(lengths, 2048), plain.pack(lengths, 2048)
    np.testing.assert_array_equal(ours.rows, theirs.rows)
    np.testing.assert_array_equal(ours.starts, theirs.starts)


@pytest.mark.parametrize("name", ["mistral-7b", "tiny"])
def test_a_shapes_weights_are_those_of_the_model(name: str):
    from random_model import SHAPES, parameter_shapes

    shapes = parameter_shapes(SHAPES[name])
    matrices = sum(size.numel() for size in shapes.values() if len(size) > 1)
    assert matrices == SHAPES[name].weights
    if name == "mistral-7b":
        assert sum(size.numel() for size in shapes.values()) == 7_241_732_096


def test_needed_operations_are_those_of_the_matrices_and_of_causal_attention():
    from random_model import SHAPES, Shape, training_flops

    tiny = SHAPES["tiny"]
    one = training_flops(tiny, np.array([10]), 4)
    assert training_flops(tiny, np.array([10, 10]), 8) == pytest.approx(2 * one)
    longer = training_flops(tiny, np.array([20]), 8)
    # a row twice as long: attention costs four times as much, of 6 x width x tokens squared a layer
    assert longer - 2 * one == pytest.approx(tiny.layers * 6 * tiny.width * (20**2 - 2 * 10**2))
    frozen = Shape(**{**vars(tiny), "rank": 0})
    matrices = frozen.weights - 2 * tiny.vocabulary * tiny.width
    head = 4 * tiny.vocabulary * tiny.width * 4
    attention = tiny.layers * 6 * tiny.width * 10**2
    assert training_flops(frozen, np.array([10]), 4) == 4 * matrices * 10 + head + attention
