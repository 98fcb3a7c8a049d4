"""How many bytes a contender is: its program, and the floor of an image that could run it."""

import re
import subprocess
from pathlib import Path


def sizes(program: Path) -> dict[str, int]:
    """`program`: the binary, or the Python environment's packages. `image`: with what it needs besides the kernel:
    shared libraries, and for Python the interpreter and its standard library. No shell, no distribution."""
    if program.is_dir():
        packages = _bytes(program / "lib")
        python = (program / "bin" / "python").resolve()
        prefix = python.parent.parent
        library = next((prefix / "lib").glob(f"python{_version(program)}"))
        interpreter = (
            _bytes(python) + _bytes(library) - _bytes(library / "site-packages") - _bytes(library / "dist-packages")
        )
        return {"program": packages, "image": packages + interpreter + _libraries(python)}
    return {"program": _bytes(program), "image": _bytes(program) + _libraries(program)}


def _version(environment: Path) -> str:
    return next((environment / "lib").glob("python3.*")).name.removeprefix("python")


def _bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())


def _libraries(binary: Path) -> int:
    """The shared libraries the dynamic linker finds for it, and the linker itself; none for a static binary."""
    listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True).stdout
    paths = {Path(found).resolve() for found in re.findall(r"(/\S+) \(0x", listed)}
    return sum(path.stat().st_size for path in paths if path.exists())
