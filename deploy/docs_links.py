"""A hook of MkDocs: links from a page to a file of the repository become the file's name, checked to exist.

On the disk and in a repository browser such a link works as it is; on the site the file is not there.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
_LINK: Final = re.compile(r"\[([^\]]*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")
log = logging.getLogger("mkdocs.hooks.docs_links")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:  # noqa: ANN401 - MkDocs' own objects
    """The page with its links out of `docs/` replaced. A broken one is a warning, which `--strict` makes an error."""
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")

    def replaced(found: re.Match[str]) -> str:
        text, target = found[1], posixpath.normpath(posixpath.join(folder, found[2]))
        if target.startswith("docs/") and not target.startswith("docs/figures"):
            return found[0]  # a page: MkDocs checks it
        if not (ROOT / target).exists():
            log.warning("%s links to %s, which does not exist", page.file.src_uri, target)
        return text if target in text else f"{text} (`{target}`)"

    return _LINK.sub(replaced, markdown)
