"""A team's own files, in every format, become the same event log."""

from __future__ import annotations

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from event_data.folder import read_folder
from event_data.own.reader import read
from runtime.errors import DatasetError

T0 = 1_700_000_000
EVENTS = [
    {"user_id": "007", "item_id": "a", "event_time": T0 + 2, "clicked": True},
    {"user_id": "008", "item_id": "b", "event_time": T0 + 1, "clicked": False},
    {"user_id": "007", "item_id": "b, c", "event_time": T0 + 3, "clicked": False},
]
ITEMS = [
    {"item_id": "a", "title": 'The "Iron"\nLighthouse', "brand": "X", "tags": "sea, iron"},
    {"item_id": "b, c", "title": "Plain", "brand": None, "tags": ""},
]


def write_csv(path, rows, delimiter=",", opener=open):
    """A CSV file as a spreadsheet writes it."""
    with opener(path, "wt", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path, rows):
    """One object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_parquet(path, rows):
    """One file."""
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)


WRITERS = {
    "csv": write_csv,
    "tsv": lambda path, rows: write_csv(path, rows, "\t"),
    "csv.gz": lambda path, rows: write_csv(path, rows, opener=gzip.open),
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}


def plain(log):
    """What a log says, without the ids of its events."""
    events = [(e.user_id, e.item_id, e.kind, e.event_time_ms, e.positive) for e in log.interactions]
    return events, [(item.item_id, item.title, dict(item.attributes)) for item in log.items]


@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_says_the_same(tmp_path, ending):
    """Ids with leading zeros, quoted delimiters and line feeds, empty attributes: alike, in order of time."""
    WRITERS[ending](tmp_path / f"interactions.{ending}", EVENTS)
    WRITERS[ending](tmp_path / f"items.{ending}", ITEMS)
    events, items = plain(read_folder(tmp_path))
    assert events == [
        ("008", "b", "impression", (T0 + 1) * 1_000, False),
        ("007", "a", "click", (T0 + 2) * 1_000, True),
        ("007", "b, c", "impression", (T0 + 3) * 1_000, False),
    ]
    assert items == [
        ("a", 'The "Iron"\nLighthouse', {"brand": "X", "tags": "sea, iron"}),
        ("b, c", "Plain", {}),
    ]


def test_a_folder_of_part_files_is_one_table(tmp_path):
    """As Spark writes them; files that are no data, such as _SUCCESS, are left alone."""
    (tmp_path / "interactions").mkdir()
    write_parquet(tmp_path / "interactions" / "part-0.parquet", EVENTS[:2])
    write_parquet(tmp_path / "interactions" / "part-1.parquet", EVENTS[2:])
    (tmp_path / "interactions" / "_SUCCESS").touch()
    assert len(read(tmp_path).interactions) == 3


def test_columns_are_named_in_a_description(tmp_path):
    """With dataset.toml any names will do, and only the attributes named are read."""
    rows = [{"who": 1, "what": 2, "when": "2024-03-01T12:00:00Z", "stars": 4.5, "shop": 9}]
    write_jsonl(tmp_path / "interactions.jsonl", rows)
    write_jsonl(tmp_path / "items.jsonl", [{"what": 2, "called": "Lamp", "colour": "red", "price": 3}])
    (tmp_path / "dataset.toml").write_text(
        '[interactions]\nuser = "who"\nitem = "what"\ntime = "when"\nrating = "stars"\npositive_at = 4\n'
        '[items]\nitem = "what"\ntitle = "called"\nattributes = ["colour"]\n'
    )
    events, items = plain(read(tmp_path))
    assert events == [("1", "2", "rating", 1_709_294_400_000, True)]
    assert items == [("2", "Lamp", {"colour": "red"})]


def test_of_too_many_events_the_newest_are_taken(tmp_path):
    """Whatever their order in the files."""
    write_csv(tmp_path / "interactions.csv", EVENTS)
    assert [event.item_id for event in read(tmp_path, most_events=2).interactions] == ["a", "b, c"]


def test_rows_that_cannot_be_used_are_skipped_and_told(tmp_path):
    """A few bad rows stop nothing; the log says how many there were, and shows one."""
    write_csv(tmp_path / "interactions.csv", [*EVENTS, {**EVENTS[0], "user_id": ""}])
    log = read(tmp_path)
    assert (len(log.interactions), log.skipped) == (3, 1)
    assert "`user_id` is empty" in log.first_skipped
    assert "row 5" in log.first_skipped


def test_a_file_of_mostly_bad_rows_is_refused(tmp_path):
    """The error names the most frequent reason and the command that tells all."""
    write_csv(tmp_path / "interactions.csv", [EVENTS[0], *({**EVENTS[1], "event_time": "soon"} for _ in range(2))])
    with pytest.raises(DatasetError, match=r"2 rows .* `event_time` is no time .*check-data"):
        read(tmp_path)


def test_rows_of_another_width_are_skipped(tmp_path):
    """A row with a column too many does not end the reading."""
    (tmp_path / "interactions.csv").write_text(f"user_id,item_id,ts,click\nu,i,{T0},1\nu,i,{T0},1,oops\nu,j,{T0},0\n")
    log = read(tmp_path)
    assert (len(log.interactions), log.skipped) == (2, 1)
    assert "5 columns where the header has 4" in log.first_skipped


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("u,item_id,ts,click", r"no column for `user`.*`u`.*dataset\.toml"),
        (f"7,3,{T0},1", r"no column for `user`.*is the first line a header\?"),
        ("user_id,item_id,ts,stars", r"`stars` holds ratings.*positive_at"),
    ],
)
def test_columns_that_are_not_clear_end_in_one_line(tmp_path, header, said):
    """Names that are not usual, a missing header, ratings without a threshold: what to write where."""
    (tmp_path / "interactions.csv").write_text(f"{header}\nu,i,{T0},1\n")
    with pytest.raises(DatasetError, match=said) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[interactions]\nusr = "x"\n', "unknown field `usr`"),
        ("[interactions\n", "cannot be used"),
        ("[interactions]\nrating_scale = [5, 1]\n", r"rating_scale = \[5, 1\].*the lowest rating comes first"),
        ('[interactions]\nuser = "nobody"\n', r"no column `nobody`, which dataset\.toml names for `user`"),
    ],
)
def test_mistakes_in_the_description_are_told(tmp_path, text, said):
    """Misspelt keys, no TOML, columns that are not there."""
    write_csv(tmp_path / "interactions.csv", EVENTS)
    (tmp_path / "dataset.toml").write_text(text)
    with pytest.raises(DatasetError, match=said):
        read(tmp_path)


def test_two_files_of_one_name_are_not_guessed_between(tmp_path):
    """interactions.csv beside interactions.parquet: one of them has to go."""
    write_csv(tmp_path / "interactions.csv", EVENTS)
    write_parquet(tmp_path / "interactions.parquet", EVENTS)
    with pytest.raises(DatasetError, match=r"interactions\.parquet, interactions\.csv: keep one"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("ending", "content"), [("parquet", b"no parquet"), ("csv", b"user_id,\xff\xfe\nx"), ("csv", b"")]
)
def test_files_that_are_something_else_end_in_one_line(tmp_path, ending, content):
    """Bytes of another kind, or none at all."""
    (tmp_path / f"interactions.{ending}").write_bytes(content)
    with pytest.raises(DatasetError, match=f"interactions.{ending}"):
        read(tmp_path)
