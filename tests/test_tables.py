"""The README's numbers are what the JSON files say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_readme_is_what_the_files_say():
    """A typed number, or a file that changed without the README, fails here."""
    done = subprocess.run(
        [sys.executable, "scripts/make_tables.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
