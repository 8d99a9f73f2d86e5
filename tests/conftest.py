"""What tests share: a tiny model made on the spot, the real small model, one real server."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real SmolLM2-135M-Instruct, from its package on PyPI, in the user's cache."""
    from llmkit.models.catalog import resolve

    return resolve("smollm2-135m-instruct").folder
