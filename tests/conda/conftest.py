"""What the tests of this folder import: the shim beside them, and the SLURM next door that may run the study in it."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent / "slurm")]
