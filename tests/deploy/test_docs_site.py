"""The docs' site builds without a link that leads nowhere, and fetches nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\ssrc=["']?(?:https?:)?//|<link[^>]*href=["']?(?:https?:)?//"""
)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
DOORS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")


def _build(config: Path, site: Path):
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config), "--site-dir", str(site)],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = _build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_fetches_anything_from_elsewhere(site):
    """Neither scripts nor fonts, images or styles: it can be read where there is no network, and tells nobody."""
    for page in site.rglob("*.html"):
        assert not FETCHED.search(page.read_text()), page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", style.read_text()), style


def test_no_page_links_out_of_the_site(site):
    """Files of the repository are named instead, as they are not there."""
    for page in set(site.rglob("*.html")) - {site / "404.html"}:  # whose links begin at the root of the server
        for target in re.findall(r'<a[^>]*href="([^"#:]+)["#]', page.read_text()):
            found = (page.parent / target).resolve()
            assert found.is_relative_to(site), (page, target)
            assert found.exists(), (page, target)
    assert "schemas/generated/asyncapi.json" in (site / "your-own-data.html").read_text()


def test_a_link_to_a_file_that_does_not_exist_is_told(caplog):
    """By page and file, so that `--strict` fails; one that exists becomes its name."""
    spec = importlib.util.spec_from_file_location("docs_links", ROOT / "deploy" / "docs_links.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    page = SimpleNamespace(file=SimpleNamespace(src_uri="how-to/upgrade.md"))
    text = "[rules](../../deploy/nothing.yaml), [x](../settings.md#a), [M](../../Makefile)"
    told = module.on_page_markdown(text, page=page)
    assert told == "rules (`deploy/nothing.yaml`), [x](../settings.md#a), M (`Makefile`)"
    assert "how-to/upgrade.md links to deploy/nothing.yaml" in caplog.text


@pytest.mark.parametrize("name", DOORS)
def test_links_of_the_pages_at_the_root_lead_somewhere(name):
    """To a file or folder, and to a heading where one is named."""
    for target, anchor in LINK.findall((ROOT / name).read_text()):
        path = ROOT / target if target else ROOT / name
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
            }


def test_the_example_in_python_runs():
    """As it stands on the page, and reads what a worker writes."""
    page = (ROOT / "docs" / "reference" / "python.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict = {}
    exec(compile(code, "python.md", "exec"), names)
    assert names["key"] == b"ann"
    assert names["value"].startswith(b"{")
    from schemas.codec import encode, headers_for  # noqa: PLC0415 - beside what the page imports
    from schemas.examples import FULL  # noqa: PLC0415
    from schemas.messages import ImpressionScores  # noqa: PLC0415

    [scores] = [message for message in FULL if isinstance(message, ImpressionScores)]
    assert names["read"](encode(scores), headers_for("msgpack")) == {one.item_id: one.ctr for one in scores.scores}
