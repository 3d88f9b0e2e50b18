"""The task interpreter and its packages, and the parts of them that sandboxes show."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rollout.runtime.child_environment import child_environment

# The virtual environment's path inside every sandbox, so that tracebacks are the same on every machine.
PREFIX = Path("/env")

TASK_PYTHON = Path(sys.prefix) / "task_env/bin/python"  # the interpreter that `make env` installs

# Data sets that packages ship for users and for their own tests. A script could look up hidden labels in them:
# scikit-learn has its toy sets, scipy's tests have iris.
BUNDLED_DATA = ("datasets/data", "datasets/images", "datasets/descr", "tests/data")
OTHER_PACKAGES = ("lib*/python*/site-packages", "lib*/python*/dist-packages", "lib*/R")

INSPECT = """
import json, sys, sysconfig
print(json.dumps({
    "prefix": sys.prefix, "base_prefix": sys.base_prefix, "packages": sysconfig.get_path("purelib"),
    "multiarch": sysconfig.get_config_var("MULTIARCH") or "", "version": sys.version,
    "library": sysconfig.get_path("stdlib"),
}))
"""


@dataclass(frozen=True)
class TaskInterpreter:
    """The virtual environment that scripts run in, as seen from outside.

    Attributes:
        prefix: The folder of the virtual environment.
        packages: Its site-packages.
        base_prefix: The installation of the interpreter that it builds on.
        library: That interpreter's standard library.
        multiarch: The folder of shared libraries on Debian, such as `x86_64-linux-gnu`; `` elsewhere.
        fingerprint: A hash of the versions of the interpreter and of every package, on which results depend.
    """

    prefix: Path
    packages: Path
    base_prefix: Path
    library: Path
    multiarch: str
    fingerprint: str

    def read_only(self) -> list[tuple[Path, Path]]:
        """Return the paths of this machine that the sandbox shows read-only, as pairs (outside, inside)."""
        system = [Path("/usr/bin"), Path("/usr/lib64"), Path("/usr/share/zoneinfo")]
        libraries = Path("/usr/lib") / self.multiarch
        system.append(libraries if self.multiarch and libraries.is_dir() else Path("/usr/lib"))
        # If /bin and /lib are folders and not links into /usr.
        system += [path for path in map(Path, ("/bin", "/lib", "/lib64")) if path.is_dir() and not path.is_symlink()]
        system.append(Path("/etc/ld.so.cache"))
        if self.base_prefix == Path("/usr"):
            system.append(self.library)
        else:
            # The environment's links may name the installation by another path than the interpreter does.
            installations = (self.base_prefix, self.base_prefix.resolve())
            system += [root / name for root in installations for name in ("bin", "lib", "lib64")]
        binds = [(path, path) for path in dict.fromkeys(system) if path.exists()]
        return [*binds, (self.prefix, PREFIX)]

    def masked(self) -> list[Path]:
        """Return the folders within `read_only` that the sandbox shows empty, as paths inside.

        They are R's packages, the packages of every interpreter other than the task interpreter, and the data sets
        that packages ship.
        """
        inside = PREFIX / self.packages.relative_to(self.prefix)
        folders = [
            inside / Path(folder, name).relative_to(self.packages)
            for folder, subfolders, _ in os.walk(self.packages)
            for name in subfolders
            if f"{os.path.basename(folder)}/{name}" in BUNDLED_DATA
        ]
        shown = [outside for outside, _ in self.read_only()]
        for root in dict.fromkeys((Path("/usr"), Path("/"), self.base_prefix, self.base_prefix.resolve())):
            candidates = (path for glob in OTHER_PACKAGES for path in root.glob(glob) if not path.is_symlink())
            folders += [path for path in candidates if any(path.is_relative_to(outside) for outside in shown)]
        return list(dict.fromkeys(folders))

    def modules(self) -> frozenset[str]:
        """Return the top-level module names of the installed packages."""
        return frozenset(path.name.split(".")[0] for path in self.packages.iterdir())


def task_python(python: str | None) -> Path:
    """Return the path of the task interpreter, given the value of `executor.python`."""
    return Path(python or TASK_PYTHON)


def inspect_interpreter(python: Path) -> TaskInterpreter:
    """Return the task interpreter at a path.

    Packages without bytecode are compiled first: they are read-only inside, and importing scikit-learn from source
    takes several times as long.

    Raises:
        ValueError: If `python` does not start or is not the interpreter of a virtual environment.
    """
    remedy = "make it with `python -m venv` and install the task packages there"
    command = [str(python), "-I", "-c", INSPECT]
    try:
        answer = subprocess.run(
            command,
            env=child_environment(),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=60,
        )
        paths = json.loads(answer.stdout)
    except OSError as error:
        raise ValueError(f"the task interpreter {python} does not run ({error.strerror}); {remedy}") from error
    except (subprocess.SubprocessError, ValueError) as error:
        raise ValueError(f"the task interpreter {python} does not run: it is no Python that works; {remedy}") from error
    if paths["prefix"] == paths["base_prefix"]:
        raise ValueError(f"{python} is not the interpreter of a virtual environment; {remedy}")
    packages = Path(paths["packages"])
    _compile(python, packages)
    installed = sorted(path.name for path in packages.glob("*.dist-info"))
    text = json.dumps([paths["version"], os.uname().machine, installed])
    return TaskInterpreter(
        prefix=Path(paths["prefix"]),
        packages=packages,
        base_prefix=Path(paths["base_prefix"]),
        library=Path(paths["library"]),
        multiarch=paths["multiarch"],
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
    )


def _compile(python: Path, packages: Path) -> None:
    """Compile the modules without bytecode, which some installers leave behind."""
    sources = []
    for folder, _, files in os.walk(packages):
        modules = [name for name in files if name.endswith(".py")]
        bytecode = Path(folder, "__pycache__")
        compiled = {name.split(".")[0] for name in os.listdir(bytecode)} if modules and bytecode.is_dir() else set()
        sources += [os.path.join(folder, name) for name in modules if name.removesuffix(".py") not in compiled]
    if sources:
        command = [str(python), "-m", "compileall", "-q", "-j0", "-i", "-"]
        subprocess.run(
            command,
            env=child_environment(),
            input="\n".join(sources),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
