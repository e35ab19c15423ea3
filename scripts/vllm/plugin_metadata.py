"""plugin_metadata.py PYTHON_DIR OUT_DIR: lets vLLM find the plugin of a checkout as if it were installed.

vLLM looks plugins up by the metadata of installed packages. Written aside and put on PYTHONPATH with the sources, it serves any
number of checkouts with one vLLM, and leaves that one as it is.
"""
import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(sys.argv[1]) / "pyproject.toml").read_text())["project"]
folder = Path(sys.argv[2]) / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
folder.mkdir(parents=True, exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
lines = []
for group, names in project["entry-points"].items():
    lines += [f"[{group}]", *(f"{name} = {target}" for name, target in names.items())]
(folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
