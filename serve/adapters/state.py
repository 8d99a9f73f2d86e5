"""Which versions are served and what their aliases mean: the part that outlives the server."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from serve.adapters.names import Version
from serve.adapters.refusal import AdapterRefused


class VersionRecord(BaseModel):
    """One version. It stays when it is unloaded, so that its number never means another."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    sha256: str
    """Of the adapter's files; also the name of its copy in the store."""

    path: str
    """Where it was loaded from, relative to the adapters' folder."""

    rank: int
    """Its largest rank."""

    base: str
    """The hash of the base it is served on."""

    template: str | None
    """The hash of the chat template it was trained with; None if that is not known."""

    verified: bool
    """Whether a run's record says that base and template are those it was trained on."""

    loaded_at: int
    """When it was loaded last, in seconds since 1970."""

    served: bool = True
    """Whether it is loaded now, or would be after a restart."""


class NameRecord(BaseModel):
    """The versions of one name, and what the name alone means."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    versions: dict[int, VersionRecord] = Field(default_factory=dict)
    """By number."""

    current: int | None = None
    """The version that the alias means; None while there is no alias."""

    previous: list[int] = Field(default_factory=list)
    """What it meant before, the latest last; only versions that are still served, each once."""


class State(BaseModel):
    """Every name. Methods change it, and refuse what would leave it inconsistent."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    format: int = Field(default=1, ge=1, le=1)
    """Of this file."""

    names: dict[str, NameRecord] = Field(default_factory=dict)
    """By name."""

    def served(self) -> dict[Version, VersionRecord]:
        """The versions that are served, in order."""
        found = {
            Version(name, number): record
            for name, entry in self.names.items()
            for number, record in entry.versions.items()
            if record.served
        }
        return dict(sorted(found.items()))

    def aliases(self) -> dict[str, Version]:
        """What each alias means."""
        entries = self.names.items()
        return {n: Version(n, e.current) for n, e in entries if e.current is not None}

    def next_number(self, name: str) -> int:
        """The number after the highest one that a name ever had."""
        entry = self.names.get(name)
        return max(entry.versions, default=0) + 1 if entry else 1

    def check_free(self, version: Version, sha256: str | None = None) -> None:
        """Refuse a version that is served, or that once was something else.

        Raises:
            AdapterRefused: it is served; or it had other content than ``sha256``.
        """
        entry = self.names.get(version.name)
        before = entry.versions.get(version.number) if entry else None
        if before is None:
            return
        if before.served:
            raise AdapterRefused(
                409,
                "adapter_exists",
                f"{version} is served already. Load the next: {self._next(version)}.",
            )
        if sha256 is not None and before.sha256 != sha256:
            raise AdapterRefused(
                409,
                "version_taken",
                f"{version} was another adapter before, and a version never changes. Load this one "
                f"as {self._next(version)}.",
                param="version",
            )

    def add(self, version: Version, record: VersionRecord) -> None:
        """Note that a version is served."""
        self.check_free(version, record.sha256)
        self.names.setdefault(version.name, NameRecord()).versions[version.number] = record

    def point(self, version: Version) -> None:
        """Let the alias mean a version from now on.

        Raises:
            AdapterRefused: that version is not served.
        """
        self.record(version)
        entry = self.names[version.name]
        if entry.current is not None:
            entry.previous = [*_without(entry.previous, entry.current), entry.current]
        entry.previous = _without(entry.previous, version.number)
        entry.current = version.number

    def roll_back(self, name: str) -> Version:
        """Let the alias mean what it meant before.

        Raises:
            AdapterRefused: there is no such alias, or nothing that it meant before is served.
        """
        entry = self.names.get(name)
        if entry is None or entry.current is None:
            raise _no_alias(name)
        if not entry.previous:
            raise AdapterRefused(
                409,
                "nothing_to_roll_back",
                f"no version that {name} meant before {name}@{entry.current} is served. Load one, "
                "and point the alias at it.",
            )
        entry.current = entry.previous.pop()
        return Version(name, entry.current)

    def drop_alias(self, name: str) -> None:
        """Let a name alone mean nothing.

        Raises:
            AdapterRefused: it means nothing now.
        """
        entry = self.names.get(name)
        if entry is None or entry.current is None:
            raise _no_alias(name)
        entry.current, entry.previous = None, []

    def take_out(self, version: Version) -> None:
        """Note that a version is served no more.

        Raises:
            AdapterRefused: it was not, or its alias still means it.
        """
        record = self.record(version)
        entry = self.names[version.name]
        if entry.current == version.number:
            raise AdapterRefused(
                409,
                "adapter_in_use",
                f"the alias {version.name} means {version}. Point it at another version, roll it "
                f"back, or remove it (unload {version.name}) first.",
            )
        record.served = False
        entry.previous = _without(entry.previous, version.number)

    def record(self, version: Version) -> VersionRecord:
        """The record of a version that is served.

        Raises:
            AdapterRefused: it is not.
        """
        entry = self.names.get(version.name)
        record = entry.versions.get(version.number) if entry else None
        if record is None or not record.served:
            served = ", ".join(map(str, self.served())) or "none"
            raise AdapterRefused(
                404,
                "adapter_not_found",
                f"{str(version)[:80]!r} is not served. Versions served: {served}.",
            )
        return record

    def _next(self, version: Version) -> Version:
        return Version(version.name, self.next_number(version.name))


def _without(numbers: list[int], number: int) -> list[int]:
    return [of for of in numbers if of != number]


def _no_alias(name: str) -> AdapterRefused:
    return AdapterRefused(404, "adapter_not_found", f"there is no alias {name[:80]!r}.")
