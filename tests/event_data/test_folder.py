"""Which data set is in a folder."""

import pytest

from event_data.folder import read_folder
from runtime.errors import DatasetError


def test_an_unknown_folder_ends_in_one_line_that_says_what_was_looked_for(tmp_path):
    """The error lists every file name that would be recognised."""
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DatasetError) as caught:
        read_folder(tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for name in ("u.data", "ratings.dat", "ratings.csv", "BX-Book-Ratings.csv", ".jsonl"):
        assert name in message


def test_a_missing_folder_is_named(tmp_path):
    """The error says that the path is not a folder."""
    with pytest.raises(DatasetError, match="is not a folder"):
        read_folder(tmp_path / "nowhere")


def test_json_of_another_kind_is_no_data_set(tmp_path):
    """JSON lines that are no reviews are not mistaken for them."""
    (tmp_path / "data.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(DatasetError, match="no known data set"):
        read_folder(tmp_path)


def test_a_data_set_without_events_is_refused(tmp_path):
    """An empty ratings file is told, not trained on."""
    (tmp_path / "u.data").write_text("")
    (tmp_path / "u.item").write_text("")
    with pytest.raises(DatasetError, match="holds no interactions"):
        read_folder(tmp_path)
