"""NVIDIA's compilers, from wheels (`pip install 'mjx[plan]'`) or from an installed CUDA."""

import dataclasses
import functools
import os
import shutil
import stat
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from mjx.errors import InputError

INSTALL = "pip install 'mjx[plan]' brings it, or let CUDA_HOME name an installed CUDA of version 13"


@dataclasses.dataclass(frozen=True)
class Toolkit:
    """Files of one CUDA."""

    root: Path

    @property
    def ptxas(self) -> Path:
        return self.root / "bin" / "ptxas"

    @property
    def nvlink(self) -> Path:
        return self.root / "bin" / "nvlink"

    @property
    def libdevice(self) -> Path:
        return self.root / "nvvm" / "libdevice" / "libdevice.10.bc"

    @property
    def nvdisasm(self) -> Path:
        return self.root / "bin" / "nvdisasm"


@functools.cache
def toolkit() -> Toolkit:
    """The CUDA that compiles.

    Raises:
        InputError: there is none; the sentence says how to get it.
    """
    missing = "there is no CUDA compiler here"
    for root in _roots():
        found = Toolkit(root)
        files = (found.ptxas, found.nvlink, found.libdevice, found.nvdisasm)
        lacking = [file.name for file in files if not file.exists()]
        if not lacking:
            return found
        if len(lacking) < len(files):
            missing = f"the CUDA in {root} has no {' and no '.join(lacking)}"
    raise InputError(f"{missing}: {INSTALL}")


def with_assembler(folder: Path, script: str) -> Toolkit:
    """The same CUDA in another folder, with this shell script as its ptxas.

    XLA calls `ptxas SOURCE -o RESULT OPTIONS`, and once `ptxas --version`, which the real one answers.
    """
    real, made = toolkit(), Toolkit(folder)
    made.ptxas.parent.mkdir()
    for tool in ("nvlink", "nvdisasm"):
        getattr(made, tool).symlink_to(getattr(real, tool))
    (folder / "nvvm").symlink_to(real.root / "nvvm")
    made.ptxas.write_text(
        f'#!/bin/sh\ncase "$1" in --*) exec "{real.ptxas}" "$@";; esac\n{script}', encoding="utf-8"
    )
    made.ptxas.chmod(made.ptxas.stat().st_mode | stat.S_IXUSR)
    return made


def _roots() -> Iterator[Path]:
    spec = find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        yield Path(folder) / "cu13"
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield Path(os.environ[variable])
    compiler = shutil.which("nvcc")
    if compiler is not None:
        yield Path(compiler).resolve().parent.parent
    yield Path("/usr/local/cuda")
