"""What the tests of this folder import: the SLURM of one node beside them, the conda shim next door."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent / "conda")]
