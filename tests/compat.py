"""The core on every version of Python, with the oldest and the newest dependencies.

``python tests/compat.py [TESTS]`` makes an environment in ``.compat`` for each version
of Python that is found, without torch: of the least one with the oldest dependencies
that ``pyproject.toml`` allows, and of each with the newest. It runs the fast tests of
the core in all of them, or the tests that are named, and says which failed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = ROOT / ".compat"
PYTHONS = ("3.11", "3.12", "3.13")
# Matplotlib 3.9 calls names of pyparsing that 3.3 warns of; pyarrow needs a numpy of 2.
WITH_OLDEST = ["pyparsing<3.2", "pyarrow<18"]
# Of the tests, what is of the adapter, and cannot be imported without torch.
OF_THE_ADAPTER = (
    "adapters", "benchmarks", "oracles/gradients.py", "studies", "tiny_models.py",
    "torture", "zoo"
)  # fmt: skip
ABOUT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def interpreter(version: str) -> str | None:
    """Return a command of a version of Python, or None."""
    for command in (f"python{version}", *_of_pyenv(version)):
        found = shutil.which(command)
        if found and subprocess.run([found, "-V"], capture_output=True).returncode == 0:
            return found
    return None


def _of_pyenv(version: str) -> list[str]:
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return [str(p / "bin" / "python") for p in sorted(versions.glob(f"{version}.*"))]


def oldest(requirement: str) -> str:
    """Return a requirement of the least version that it allows."""
    return re.sub(r">=([\d.]+).*", lambda m: f"=={m[1]}{_zero(m[1])}", requirement)


def _zero(version: str) -> str:
    """Return what makes a version of two numbers one of three."""
    return ".0" if version.count(".") == 1 else ""


def environment(python: str, name: str, requirements: list[str]) -> Path:
    """Return the interpreter of an environment that has the requirements."""
    place = PLACE / name
    binary = place / "bin" / "python"
    if not binary.exists():
        subprocess.run([python, "-m", "venv", place], check=True)
    tests = ABOUT["dependency-groups"]["test"]
    install = [binary, "-m", "pip", "install", "-q", "--only-binary=:all:"]
    subprocess.run([*install, *requirements, *tests], check=True)
    return binary


def passes(binary: Path, tests: list[str]) -> bool:
    """Run the tests of the core."""
    core = ["tests", *(f"--ignore=tests/{place}" for place in OF_THE_ADAPTER)]
    where = os.pathsep.join([str(ROOT), str(ROOT / "adapters" / "torch")])
    # Old packages say that they use what newer ones will drop.
    quiet = ["-W", "default::DeprecationWarning", "-W", "default::FutureWarning"]
    command = [binary, "-m", "pytest", "-q", "-n", "2", "-m", "not slow", *quiet]
    done = subprocess.run(
        [*command, *(tests or core)], cwd=ROOT, env=os.environ | {"PYTHONPATH": where}
    )
    return done.returncode == 0


def main() -> int:
    """Try every pair of a version of Python and of dependencies."""
    newest = ABOUT["project"]["dependencies"]
    least = [*map(oldest, newest), *WITH_OLDEST]
    settings = [(PYTHONS[0], "oldest", least)]
    settings += [(version, "newest", newest) for version in PYTHONS]
    failed = []
    for version, kind, requirements in settings:
        if (python := interpreter(version)) is None:
            print(f"Python {version} is not here: left out.", flush=True)
            continue
        print(f"Python {version}, {kind} dependencies", flush=True)
        binary = environment(python, f"{version}-{kind}", requirements)
        if not passes(binary, sys.argv[1:]):
            failed.append(f"Python {version} with the {kind} dependencies")
    print("Failed: " + "; ".join(failed) if failed else "All passed.")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
