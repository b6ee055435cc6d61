"""Pages that are files at the root of the repository, each with one source."""

import pathlib

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


_pages = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "LICENSE": "LICENSE",
    "CITATION.cff": "CITATION.cff",
}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    root = pathlib.Path(config.config_file_path).parent
    for source, page in _pages.items():
        # Links are relative to the root there, and to `docs/` here.
        content = (root / source).read_text("utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=content))
    return files
