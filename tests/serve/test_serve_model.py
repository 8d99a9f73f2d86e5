import json
from pathlib import Path

import pytest

from serve.errors import AdapterNotUsable, ModelNotFound
from serve.model import open_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "secret" / "demo"
    made.mkdir(parents=True)
    (made / "config.json").write_text("{}")
    return made


def adapter(tmp_path: Path, **config: object) -> Path:
    made = tmp_path / "adapter"
    made.mkdir(exist_ok=True)
    (made / "adapter_config.json").write_text(json.dumps(config))
    return made


def test_the_name_is_the_folders_own_unless_given(folder: Path) -> None:
    assert open_model(folder).name == "demo"
    assert open_model(folder, name="mine").name == "mine"


def test_a_missing_folder_or_config_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no such folder"):
        open_model(tmp_path / "absent")
    with pytest.raises(ModelNotFound, match=r"no config\.json"):
        open_model(tmp_path)


@pytest.mark.parametrize(
    ("config", "rank"),
    [({"r": 4}, 8), ({"r": 64}, 64), ({"r": 8, "rank_pattern": {"q_proj": 100}}, 128)],
)
def test_the_rank_is_rounded_up_to_one_that_vllm_has(
    folder: Path, tmp_path: Path, config: dict[str, object], rank: int
) -> None:
    assert open_model(folder, adapters={"a": adapter(tmp_path, **config)}).max_lora_rank == rank


def test_an_adapter_that_cannot_be_served_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterNotUsable, match="no adapter_config"):
        open_model(folder, adapters={"a": tmp_path})
    with pytest.raises(AdapterNotUsable, match="above 512"):
        open_model(folder, adapters={"a": adapter(tmp_path, r=1024)})
    with pytest.raises(AdapterNotUsable, match="whole number"):
        open_model(folder, adapters={"a": adapter(tmp_path, r="8")})
    with pytest.raises(AdapterNotUsable, match="itself has that name"):
        open_model(folder, adapters={"demo": adapter(tmp_path, r=8)})
