"""Start-up time of commands, imports and notebooks, beside `import torch` and spandrel; medians.

    python benchmarks/startup.py               every row, three runs each
    python benchmarks/startup.py --runs 9

Every run is a process of its own; the first one of each row, which compiles bytecode, does not count. "Above torch":
what the row takes once torch and IPython are imported, measured inside the process.
"""

import argparse
import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
AFTER_TORCH = (
    "import time, torch, IPython\nstart = time.perf_counter()\n{}\nprint('seconds', time.perf_counter() - start)"
)


def imports_of(notebook: Path) -> str:
    """Every import statement of the notebook's code cells, in order."""
    cells = [c for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "code"]
    trees = (ast.parse("".join(cell["source"])) for cell in cells)
    lines = (node for tree in trees for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
    return "\n".join(ast.unparse(node) for node in lines)


def seconds(line: list[str], runs: int) -> float:
    """The median wall time of a command, or of what it prints as "seconds"."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        done = subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
        taken = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"{line}: {done.stderr}")
        own = [row for row in done.stdout.splitlines() if row.startswith("seconds ")]
        times.append(float(own[-1].split()[1]) if own else taken)
    return median(times[1:])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    options = parser.parse_args()
    runs, only = options.runs, options.only
    python = [sys.executable, "-c"]
    whole = {
        "python -c pass": [*python, "pass"],
        "import srlib": [*python, "import srlib"],
        "srlib upscale --help": [sys.executable, "-m", "srlib", "upscale", "--help"],
        "srlib data --help": [sys.executable, "-m", "srlib", "data", "--help"],
        "srlib check-parameters params/demo": [sys.executable, "-m", "srlib", "check-parameters", "params/demo"],
        "import torch": [*python, "import torch"],
        "import srlib.networks.hat": [*python, "import srlib.networks.hat"],
        "import spandrel": [*python, "import spandrel"],
    }
    print("seconds from start to end of a process")
    for name, line in whole.items():
        if only in name:
            print(f"  {name:<42}{seconds(line, runs):6.2f}", flush=True)
    statements = {"import srlib.networks.hat": "import srlib.networks.hat", "import spandrel": "import spandrel"}
    statements["all that srlib upscale needs"] = "import srlib.inference.folders, srlib.networks.checkpoints"
    statements["all that srlib train needs"] = "import srlib.experiments.stages"
    for notebook in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        statements[f"imports of {notebook.stem}"] = imports_of(notebook)
    print("seconds above torch (and IPython, which every kernel has)")
    for name, code in statements.items():
        if only in name:
            print(f"  {name:<42}{seconds([*python, AFTER_TORCH.format(code)], runs):6.2f}", flush=True)


if __name__ == "__main__":
    main()
