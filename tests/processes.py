"""Code that runs in several processes at once."""

import subprocess
import sys
from pathlib import Path


def run_together(module: str, folder: Path, processes: int = 2) -> None:
    """Let torchrun start a module, which is given a folder, in some processes; all must end well."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    subprocess.run([*torchrun, "-m", module, str(folder)], cwd=Path(__file__).parents[1], check=True, timeout=240)
