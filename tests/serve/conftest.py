from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.model import open_model
from serve.process import ServerProcess
from serve.settings import ServeSettings


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return Path("/tmp/res/smol")


@pytest.fixture(scope="session")
def server(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("server") / "serve.log"
    model = open_model(smollm2, name="smollm2")
    with ServerProcess(model, log, ServeSettings(max_model_len=2048)) as running:
        yield running
