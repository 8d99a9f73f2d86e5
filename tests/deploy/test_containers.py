"""The image and the services as Compose reads them, without a Docker daemon, and their rules."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
FILLED = {"MODEL": "tuned", "POSTGRES_PASSWORD": "p", "GRAFANA_PASSWORD": "g"}


def compose(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Compose as a plug-in of docker or on its own; skips without either."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and not subprocess.run(
                [*command, "version"], capture_output=True, check=False
            ).returncode
        ):
            break
    else:
        pytest.skip("needs Docker Compose: scripts/system-packages.sh")
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [*command, *words],
        cwd=ROOT,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def services(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    answer = compose("--profile", request.param, "config", **FILLED)
    assert answer.returncode == 0, answer.stderr
    found = yaml.safe_load(answer.stdout)["services"]
    # Version 1 shows services of other profiles too.
    return {
        name: service
        for name, service in found.items()
        if not name.startswith("llmkit-") or name == f"llmkit-{request.param}"
    }


def test_each_profile_has_a_server_with_all_that_it_needs(services: dict[str, Any]) -> None:
    [server] = [name for name in services if name.startswith("llmkit-")]
    assert set(services) == {server, "postgres", "prometheus", "grafana"}
    assert services[server]["build"]["args"]["LIST"] == server.removeprefix("llmkit-")
    assert "/models/tuned" in services[server]["command"]


def test_no_service_runs_as_root_or_can_write_to_its_image(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]), name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_every_service_says_whether_it_is_well(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["healthcheck"]["test"], name


def test_nothing_is_reachable_from_other_machines_unless_asked(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for port in service.get("ports", []):
            host = port.get("host_ip") if isinstance(port, dict) else port.split(":")[0]
            assert host == "127.0.0.1", name


def test_every_image_from_elsewhere_has_a_version(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert re.search(r":[v\d][\w.-]*$", service["image"]) or "build" in service, name


def test_files_that_are_mounted_are_in_the_repository() -> None:
    mounted = re.findall(r"- (\./deploy[^:]*):", (ROOT / "docker-compose.yml").read_text())
    assert len(mounted) == 3
    assert all((ROOT / path).is_dir() for path in mounted)


@pytest.mark.parametrize("missing", FILLED)
def test_a_value_left_out_of_the_environment_is_named(missing: str) -> None:
    rest = {name: value for name, value in FILLED.items() if name != missing}
    answer = compose("--profile", "cpu", "config", **rest)
    assert answer.returncode != 0
    assert missing in answer.stderr


def test_the_example_environment_has_every_value_that_must_be_given() -> None:
    needed = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
    named = set(re.findall(r"^(\w+)=", (ROOT / "deploy/example.env").read_text(), re.MULTILINE))
    assert needed <= named


def test_a_stop_leaves_the_server_its_drain() -> None:
    from serve.settings import ServeSettings

    server = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["x-server"]
    assert int(server["stop_grace_period"].rstrip("s")) > ServeSettings().drain_seconds + 20


def test_all_that_the_image_copies_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    let_in = {line[1:].split("/")[0] for line in ignored if line.startswith("!")}
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE):
        for source in line.replace("${LIST}", "cpu").split():
            assert (ROOT / source).exists(), source
            assert source.split("/")[0] in let_in, source


def test_the_image_has_every_package_that_is_ours() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    for package in packages:
        assert f"COPY {package.rstrip('*')} " in DOCKERFILE


def test_the_images_last_stage_is_not_roots() -> None:
    last = DOCKERFILE.split("\nFROM ")[-1]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert "HEALTHCHECK" in last
    assert 'ENTRYPOINT ["llmkit"]' in last


def test_the_image_and_the_unit_write_to_the_same_few_places() -> None:
    unit = (ROOT / "deploy/llmkit.service").read_text()
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "TRITON_CACHE_DIR", "NUMBA_CACHE_DIR"):
        assert re.search(rf"\b{name}=/(cache|data)", DOCKERFILE), name
        assert re.search(rf"\b{name}=/var/(cache|lib)/llmkit", unit), name


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = (ROOT / "deploy/llmkit.service").read_text()
    # It looks for the program, which is not installed where tests run.
    path = tmp_path / "llmkit.service"
    path.write_text(text.replace("/opt/llmkit/.venv/bin/llmkit", "/bin/true"))
    answer = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    about_ours = [line for line in answer.stderr.splitlines() if "llmkit" in line]
    assert (answer.returncode, about_ours) == (0, [])


def test_settings_that_are_passed_are_the_servers() -> None:
    from llmkit.serving import with_overrides
    from serve.settings import ServeSettings

    command = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["x-server"]["command"]
    unit = (ROOT / "deploy/llmkit.service").read_text()
    for words in (command, re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)[0].split()):
        settings = with_overrides(ServeSettings(), [word for word in words if "=" in word])
        assert settings.access_log == Path("/dev/stdout")
