"""A wheel has all that the switch needs where there is no clone of its repository."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("appliance", "bpf_prog", "ryu_apps")


def test_a_wheel_has_every_file_that_runs(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in SHIPPED:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)]
    subprocess.run(pip, check=True, timeout=300)
    (wheel,) = tmp_path.glob("ofswitch-*.whl")
    files = {str(path.relative_to(ROOT)) for name in SHIPPED for path in (ROOT / name).rglob("*") if path.is_file()}
    wanted = {file for file in files if "__pycache__" not in file and not file.endswith(".md")}
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())
    assert "bpf_prog/datapath.c" in wanted
