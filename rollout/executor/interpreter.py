"""What scripts run in: the task environment's interpreter and packages, and what of them the sandbox shows."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Inside every sandbox the task environment stands here, so tracebacks are the same on every machine.
ENVIRONMENT = Path("/env")

TASK_PYTHON = Path(sys.prefix) / "task_env/bin/python"  # where `make env` puts the interpreter of the task environment

# Data sets that packages bring along, for users and for their own tests: with them, a script could look the hidden
# labels up (scikit-learn has its toy sets, scipy's tests have iris).
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
class TaskEnvironment:
    """A virtual environment that scripts run in, as seen from outside.

    Attributes:
        prefix: the virtual environment's folder.
        packages: its site-packages.
        base_prefix: the installation of the interpreter that it builds on.
        library: that interpreter's standard library.
        multiarch: the folder of shared libraries on Debian, such as `x86_64-linux-gnu`; `` elsewhere.
        fingerprint: a hash of the interpreter's version and every package's; results depend on it.
    """

    prefix: Path
    packages: Path
    base_prefix: Path
    library: Path
    multiarch: str
    fingerprint: str

    def read_only(self) -> list[tuple[Path, Path]]:
        """Return what the sandbox shows of this machine, as pairs (here, inside); all of it read-only."""
        system = [Path("/usr/bin"), Path("/usr/lib64"), Path("/usr/share/zoneinfo")]
        libraries = Path("/usr/lib") / self.multiarch
        system.append(libraries if self.multiarch and libraries.is_dir() else Path("/usr/lib"))
        # Where /bin and /lib are folders of their own, and not links into /usr.
        system += [path for path in map(Path, ("/bin", "/lib", "/lib64")) if path.is_dir() and not path.is_symlink()]
        system.append(Path("/etc/ld.so.cache"))
        if self.base_prefix == Path("/usr"):
            system.append(self.library)
        else:
            # The environment's links may name the installation by another path than the interpreter does.
            installations = (self.base_prefix, self.base_prefix.resolve())
            system += [root / name for root in installations for name in ("bin", "lib", "lib64")]
        binds = [(path, path) for path in dict.fromkeys(system) if path.exists()]
        return [*binds, (self.prefix, ENVIRONMENT)]

    def masked(self) -> list[Path]:
        """Return the folders inside `read_only` that the sandbox shows empty, as paths inside.

        They are the packages of every interpreter but the task environment's own, R's, and the data sets that
        packages bring along.
        """
        inside = ENVIRONMENT / self.packages.relative_to(self.prefix)
        found = [
            inside / Path(folder, name).relative_to(self.packages)
            for folder, subfolders, _ in os.walk(self.packages)
            for name in subfolders
            if f"{os.path.basename(folder)}/{name}" in BUNDLED_DATA
        ]
        shown = [here for here, _ in self.read_only()]
        for root in dict.fromkeys((Path("/usr"), Path("/"), self.base_prefix, self.base_prefix.resolve())):
            candidates = (path for glob in OTHER_PACKAGES for path in root.glob(glob) if not path.is_symlink())
            found += [path for path in candidates if any(path.is_relative_to(here) for here in shown)]
        return list(dict.fromkeys(found))

    def modules(self) -> frozenset[str]:
        """Return the top-level module names of the environment's packages."""
        return frozenset(path.name.split(".")[0] for path in self.packages.iterdir())


def inspect_environment(python: Path) -> TaskEnvironment:
    """Return the task environment that an interpreter belongs to.

    Its packages are compiled first where they are not: inside, the environment is read-only, and importing
    scikit-learn from source takes several times as long. Raises ValueError when `python` does not start or is not
    the interpreter of a virtual environment.
    """
    remedy = "make it with `python -m venv` and install the task packages there"
    command = [str(python), "-I", "-c", INSPECT]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"the task environment's interpreter {python} does not run ({error}); {remedy}") from error
    found = json.loads(answer.stdout)
    if found["prefix"] == found["base_prefix"]:
        raise ValueError(f"{python} is not the interpreter of a virtual environment; {remedy}")
    packages = Path(found["packages"])
    _compile(python, packages)
    installed = sorted(path.name for path in packages.glob("*.dist-info"))
    text = json.dumps([found["version"], os.uname().machine, installed])
    return TaskEnvironment(
        prefix=Path(found["prefix"]),
        packages=packages,
        base_prefix=Path(found["base_prefix"]),
        library=Path(found["library"]),
        multiarch=found["multiarch"],
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
    )


def _compile(python: Path, packages: Path) -> None:
    """Compile the modules that have no bytecode, as some installers leave them."""
    sources = []
    for folder, _, files in os.walk(packages):
        modules = [name for name in files if name.endswith(".py")]
        bytecode = Path(folder, "__pycache__")
        compiled = {name.split(".")[0] for name in os.listdir(bytecode)} if modules and bytecode.is_dir() else set()
        sources += [os.path.join(folder, name) for name in modules if name.removesuffix(".py") not in compiled]
    if sources:
        command = [str(python), "-m", "compileall", "-q", "-j0", "-i", "-"]
        subprocess.run(command, input="\n".join(sources), capture_output=True, text=True, check=False)
