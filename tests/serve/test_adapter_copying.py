"""Copies of adapters out of a folder that others may change meanwhile."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from adapter_folders import make_adapter, matrices

from serve.adapters.base import folder_hash
from serve.adapters.copying import copy_adapter
from serve.adapters.places import CONFIG, WEIGHTS
from serve.adapters.refusal import AdapterRefused
from serve.adapters.store import AdaptersFolderNotUsable, Store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    adapter = make_adapter(tmp_path / "root" / "a" / "b")
    (adapter / "README.md").write_text("about it")
    (adapter / "c").mkdir()
    (adapter / "c" / "more").write_text("more")
    make_adapter(tmp_path / "secret", matrices(fill=7.0))
    (tmp_path / "copy").mkdir()
    return tmp_path / "root"


def test_a_copy_is_of_the_two_files_and_the_hash_of_all(root: Path, tmp_path: Path) -> None:
    adapter, copy = root / "a" / "b", tmp_path / "copy"
    assert copy_adapter(root, adapter, copy) == folder_hash(adapter)
    assert sorted(path.name for path in copy.iterdir()) == [CONFIG, WEIGHTS]
    assert all((copy / n).read_bytes() == (adapter / n).read_bytes() for n in (CONFIG, WEIGHTS))


def link_weights(adapter: Path, secret: Path) -> None:
    (adapter / WEIGHTS).unlink()
    (adapter / WEIGHTS).symlink_to(secret / WEIGHTS)


def link_folder(adapter: Path, secret: Path) -> None:
    adapter.rename(adapter.with_name("old"))
    adapter.symlink_to(secret)


def link_folder_above(adapter: Path, secret: Path) -> None:
    adapter.parent.rename(adapter.parent.with_name("old"))
    adapter.parent.symlink_to(secret.parent)
    secret.rename(secret.with_name("b"))


def pipe(adapter: Path, _: Path) -> None:
    (adapter / CONFIG).unlink()
    os.mkfifo(adapter / CONFIG)


@pytest.mark.parametrize("swap", [link_weights, link_folder, link_folder_above, pipe])
def test_what_was_swapped_in_since_the_path_was_looked_at_is_refused(
    root: Path, tmp_path: Path, swap: Callable[[Path, Path], None]
) -> None:
    swap(root / "a" / "b", tmp_path / "secret")
    with pytest.raises(AdapterRefused) as refused:
        copy_adapter(root, root / "a" / "b", tmp_path / "copy")
    assert refused.value.code == "adapter_not_usable"
    assert not (tmp_path / "copy" / WEIGHTS).exists() or swap is pipe


def test_links_beside_an_adapter_are_not_followed(root: Path, tmp_path: Path) -> None:
    adapter = root / "a" / "b"
    before = folder_hash(adapter)
    (adapter / "link").symlink_to(tmp_path / "secret" / WEIGHTS)
    (adapter / "folder").symlink_to(tmp_path / "secret")
    assert copy_adapter(root, adapter, tmp_path / "copy") == before == folder_hash(adapter)


def test_a_file_that_can_not_be_read_is_the_adapters_fault(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def denied(path: str, *given: int, **more: int) -> int:
        if path == WEIGHTS:
            raise PermissionError(13, "Permission denied")
        return opened(path, *given, **more)

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(AdapterRefused, match="Permission denied"):
        copy_adapter(root, root / "a" / "b", tmp_path / "copy")


def test_a_folder_of_copies_that_is_a_link_is_not_used(root: Path, tmp_path: Path) -> None:
    (root / ".served").symlink_to(tmp_path / "secret")
    with pytest.raises(AdaptersFolderNotUsable, match="is a link"):
        Store(root)
    assert (tmp_path / "secret" / WEIGHTS).exists()
