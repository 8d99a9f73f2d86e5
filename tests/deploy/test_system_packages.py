"""What `scripts/system-packages.sh` does to the machine beside installing packages."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/system-packages.sh"


def install(folder: Path, *, apt_get: str) -> Path:
    """Run it as root of a machine without packages; where Prometheus' unit would be."""
    programs = folder / "bin"
    programs.mkdir()
    for name, answer in {"id": "echo 0", "apt-get": apt_get}.items():
        program = programs / name
        program.write_text(f"#!/bin/sh\n{answer}\n")
        program.chmod(0o755)
    script = folder / "script"
    script.write_text(
        SCRIPT.read_text().replace("/etc/", f"{folder}/etc/").replace(" /usr/", f" {folder}/usr/")
    )
    path = f"{programs}:{os.environ['PATH']}"
    subprocess.run(["bash", script], check=True, capture_output=True, env={"PATH": path})
    return folder / "etc/systemd/system/prometheus.service"


@pytest.mark.parametrize("apt_get", ["true", "false"])
def test_a_unit_that_is_there_is_left_alone(tmp_path: Path, apt_get: str) -> None:
    unit = tmp_path / "etc/systemd/system/prometheus.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("the administrator's")
    install(tmp_path, apt_get=apt_get)
    assert unit.read_text() == "the administrator's"


def test_debians_prometheus_does_not_start(tmp_path: Path) -> None:
    assert install(tmp_path, apt_get="true").readlink() == Path("/dev/null")


def test_nothing_stays_masked_that_was_not_installed(tmp_path: Path) -> None:
    assert not install(tmp_path, apt_get="false").is_symlink()
