"""The figures in README and docs are those that were measured."""

import json
import re

import pytest

from benchmarks.fill_docs import BLOCKS, FIGURES, SOURCES, UnknownFigures, filled, keep, pages

FRESHNESS = {
    "sustained_events_per_second": 12_345.6,
    "rates": [{"rate": 1000, "kept_up": True, "freshness_p50_ms": 74.4, "freshness_p99_ms": 193.6}],
}


def page(content):
    """A page with one block."""
    return f"before\n\n<!-- figures: freshness -->\n{content}\n<!-- end of figures -->\n\nafter\n"


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_the_tables_are_those_of_the_kept_figures(path):
    """Every block of README and docs is what docs/figures gives; `python -m benchmarks.fill_docs` rewrites them."""
    assert path.read_text() == filled(path.read_text(), FIGURES)


def test_every_table_stands_in_some_page():
    """No table is made in vain."""
    text = "".join(path.read_text() for path in pages())
    assert set(re.findall(r"<!-- figures: (\S+) -->", text)) == set(BLOCKS)


def test_a_block_is_rewritten_and_the_rest_stays(tmp_path):
    """The old table goes, the new one comes, the text around it is untouched."""
    (tmp_path / "freshness.json").write_text(json.dumps(FRESHNESS))
    text = filled(page("| old | figures |"), tmp_path)
    assert text.startswith("before\n\n<!-- figures: freshness -->\n")
    assert text.endswith("\n<!-- end of figures -->\n\nafter\n")
    assert "12,346" in text
    assert "| 1,000 | yes | 74 ms | 194 ms |" in text
    assert "old" not in text


def test_a_block_without_figures_says_what_would_measure_them(tmp_path):
    """No old figure is left standing when there is no new one."""
    text = filled(page("| old | figures |"), tmp_path)
    assert SOURCES["freshness"] in text
    assert "old" not in text


def test_an_unknown_table_is_an_error(tmp_path):
    """A misspelt block would never be filled."""
    with pytest.raises(UnknownFigures, match="frehsness"):
        filled(page("").replace("freshness", "frehsness"), tmp_path)


def test_figures_are_kept_under_the_name_of_their_source(tmp_path):
    """A file is kept under its own name; one of an unknown name is refused."""
    known, unknown = tmp_path / "freshness.json", tmp_path / "new.json"
    for file in (known, unknown):
        file.write_text(json.dumps(FRESHNESS))
    keep(known, tmp_path / "kept")
    assert json.loads((tmp_path / "kept" / "freshness.json").read_text()) == FRESHNESS
    with pytest.raises(UnknownFigures, match=r"new\.json"):
        keep(unknown, tmp_path / "kept")
