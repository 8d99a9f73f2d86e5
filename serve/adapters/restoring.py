"""What must still hold of recorded adapters before an engine is started for them."""

from __future__ import annotations

from pathlib import Path

from serve.adapters.base import ServedBase, folder_hash
from serve.adapters.names import Version
from serve.adapters.registry import Room
from serve.adapters.state import VersionRecord
from serve.adapters.store import AdaptersFolderNotUsable, Store
from serve.errors import AdapterNotUsable


def check_restorable(store: Store, base: ServedBase, room: Room) -> None:
    """Refuse to start when clients would not find what they found before. Blocks.

    Raises:
        AdaptersFolderNotUsable: there are more adapters than slots.
        AdapterNotUsable: one does not fit what is served now, or its copy is damaged.
    """
    served = store.state.served()
    if len(served) > room.slots:
        raise AdaptersFolderNotUsable(
            store.root,
            f"{len(served)} adapters were served from it ({', '.join(map(str, served))}), and "
            f"max_adapters is {room.slots}. Set max_adapters={len(served)}.",
        )
    for version, record in served.items():
        problem = _problem(version, record, store, base, room)
        if problem:
            raise AdapterNotUsable(
                str(version),
                Path(record.path),
                f"it was served from {store.root} before, and now {problem}",
            )


def _problem(
    version: Version, record: VersionRecord, store: Store, base: ServedBase, room: Room
) -> str | None:
    copy = store.folder_of(record.sha256)
    if version.name in room.taken:
        return "its name is the base's. Serve the base under another (--name)"
    if record.base != base.sha256:
        return "another base is served. Serve the one from before, or use another adapters_folder"
    if record.verified and record.template not in (None, base.template_sha256):
        return "another chat template is served. Serve the one from before (chat_template=...)"
    if record.rank > room.max_rank:
        return f"its rank {record.rank} is above max_adapter_rank={room.max_rank}. Raise that"
    if not copy.is_dir() or folder_hash(copy) != record.sha256:
        return f"its copy {copy} is missing or damaged. Put it back, or remove served.json there"
    return None
