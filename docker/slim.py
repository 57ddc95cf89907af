"""Take out of the image's environment what no container runs, and write its byte code, once.

python docker/slim.py /opt/venv        # as the environment's own Python
"""

from __future__ import annotations

import compileall
import importlib
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REMOVED = (
    "**/tests",
    "**/test",
    "**/*.a",
    "**/*.pyi",
    "**/*.jar",
    "torch/include",
    "torch/share",
    "torch/bin/*",
    "pyarrow/include",
    "pyarrow/*flight*",
    "pyarrow/src",
    "ray/rllib",
    "ray/llm",
    "botocore/data/*",
)
KEPT = (
    "torch/bin/torch_shm_manager",  # shares tensors between processes
    "botocore/data/*.*",  # files for every service
    "botocore/data/s3",
    "botocore/data/s*o*",  # logins: sso, sso-oidc
    "botocore/data/sts",
    "botocore/data/signin",
)
PROGRAMS = ("raylet", "gcs_server")  # of Ray; stripped of symbols, as all libraries are
# strip would break the libraries that wheels bring along, in folders of this suffix; CUDA's have
# no symbols to lose.
PATCHED, UNTOUCHED = ".libs", {"nvidia", "triton"}
COMPILED = ("ray", "mlflow")  # they import much by name, so all of their byte code is written
IMPORTED = ("sweeps", "trainables", "bigram_models", "analysis")
BESIDES = ("mlflow.server.auth", "mlflow.server.fastapi_app", "ray.tune", "ray.job_submission")


def main(environment: Path) -> None:
    (packages,) = environment.glob("lib/python*/site-packages")
    kept = {path for pattern in KEPT for path in packages.glob(pattern)}
    for path in [path for pattern in REMOVED for path in packages.glob(pattern)]:
        if path in kept:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in _built(packages):
        subprocess.run(["strip", "--strip-unneeded", path], check=True)
    for name in COMPILED:
        compileall.compile_dir(packages / name, quiet=2, workers=0)
    for name in (*BESIDES, *_modules()):
        importlib.import_module(name)


def _built(packages: Path) -> Iterator[Path]:
    for path in packages.rglob("*"):
        is_built = path.name in PROGRAMS or path.suffix == ".so" or ".so." in path.name
        package = path.relative_to(packages).parts[0]
        is_left = path.parent.suffix == PATCHED or package in UNTOUCHED
        if is_built and path.is_file() and not is_left:
            yield path


def _modules() -> Iterator[str]:
    for name in IMPORTED:
        found = importlib.import_module(name)
        for module in pkgutil.walk_packages(found.__path__, f"{name}."):
            # Triton comes with CUDA alone, and asks for a GPU.
            if not module.name.endswith(("__main__", "triton_kernels")):
                yield module.name


if __name__ == "__main__":
    main(Path(sys.argv[1]))
