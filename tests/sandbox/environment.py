"""Makes the sandbox's Python packages available on first use, and prints the
directory that holds them.

Only the standard library is used here, and not all of it: Debian's Python
comes without venv, ensurepip and pip. So pip is part of the repository, as the
wheel file that its project publishes, and runs straight from it; and the
environment is no virtual one but a directory for PYTHONPATH. Every package is
checked against requirements.txt's hash of it. The directory is named after
those hashes, so a changed requirement makes a new one.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
REQUIREMENTS = HERE / "requirements.txt"


def environments() -> Path:
    """The directory that holds the environments, outside the clone wherever
    `target` is.
    """
    if chosen := os.environ.get("WEKACTL_SANDBOX_ENV"):
        return Path(chosen).absolute()
    target = os.environ.get("CARGO_TARGET_DIR")
    return (
        Path(target).absolute() if target else REPOSITORY / "target"
    ) / "sandbox-env"


def name() -> str:
    """Differs wherever the installed files would: requirements, Python
    version, implementation and processor.
    """
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = f"{sys.implementation.name}{version}"
    return f"{digest}-{interpreter}-{sys.platform}-{platform.machine()}"


def install(target: Path) -> None:
    """Install the pinned packages into the directory."""
    wheels = sorted(HERE.glob("pip-*.whl"))
    if len(wheels) != 1:
        raise SystemExit(
            f"sandbox: one pip wheel belongs in {HERE}, found {len(wheels)}"
        )
    # An index, a proxy or a certificate that the user configured stays; these
    # three would make the call fail.
    environment = {
        **os.environ,
        "PIP_USER": "0",
        "PIP_REQUIRE_VIRTUALENV": "0",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    for contradiction in ("PIP_TARGET", "PIP_PREFIX"):
        environment.pop(contradiction, None)
    command = [sys.executable, "-I", str(wheels[0] / "pip"), "install"]
    command += [
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--retries",
        "5",
    ]
    command += ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
    command += ["--target", str(target), "--requirement", str(REQUIREMENTS)]
    result = subprocess.run(command, env=environment, stdout=sys.stderr)
    if result.returncode != 0:
        raise SystemExit(
            "sandbox: its Python packages could not be installed"
            f" (pip ended with {result.returncode})"
        )


def ready() -> Path:
    """The environment's directory, made if need be; any number of callers at
    once.
    """
    parent = environments()
    directory = parent / name()
    if directory.is_dir():
        return directory
    parent.mkdir(parents=True, exist_ok=True)
    with open(parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if directory.is_dir():  # made by the one that held the lock
            return directory
        print(
            "sandbox: installing its Python packages (first use only)",
            file=sys.stderr,
        )
        # Built aside and renamed: an interrupted installation is never
        # mistaken for a finished one.
        work = Path(tempfile.mkdtemp(prefix="making-", dir=parent))
        try:
            install(work / "site")
            os.rename(work / "site", directory)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return directory


if __name__ == "__main__":
    try:
        print(ready())
    except OSError as failure:
        raise SystemExit(
            f"sandbox: its Python packages have no place: {failure}"
        ) from failure
