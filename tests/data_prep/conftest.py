"""One tiny tokenizer a session."""

from pathlib import Path

import pytest
from chat_rows import TEMPLATES
from tiny_tokenizer import build_tokenizer

from data_prep.chat_templates import ChatTemplate, load_template
from data_prep.tokenizer import Tokenizer, load_tokenizer


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_folder)


@pytest.fixture(scope="session")
def chatml(tokenizer: Tokenizer) -> ChatTemplate:
    return load_template("chatml", tokenizer)


@pytest.fixture(scope="module", params=TEMPLATES)
def template(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> ChatTemplate:
    return load_template(request.param, tokenizer)
