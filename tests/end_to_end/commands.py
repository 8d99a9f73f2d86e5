"""The command line, run as a person runs it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def llmkit(*words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a person does."""
    return subprocess.run(
        [sys.executable, "-m", "llmkit", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=1100,
        env={**os.environ, **environment},
    )
