"""Which data set is in a folder."""

import pytest

from event_data.folder import read_folder
from event_data.load import load_log
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


RATINGS = "1\t10\t3\t100\n1\t11\t5\t101\n"
REVIEW = '{{"user_id": "u{0}", "parent_asin": "p", "rating": {0}.0, "timestamp": 1000}}\n'


def movielens(folder):
    """Two ratings, 3 and 5."""
    (folder / "u.data").write_text(RATINGS)
    (folder / "u.item").write_text("")
    return folder


def amazon(folder):
    """Two reviews, 3 and 5."""
    (folder / "reviews.jsonl").write_text(REVIEW.format(3) + REVIEW.format(5))
    return folder


@pytest.mark.parametrize("data_set", [movielens, amazon])
def test_every_data_set_of_ratings_takes_the_rating_of_a_click(data_set, tmp_path):
    """By default 4 is a click; asked for 3, both ratings would be, asked for 5, one is, and the name tells."""
    folder = data_set(tmp_path)
    assert [event.positive for event in read_folder(folder).interactions] == [False, True]
    assert read_folder(folder).name == tmp_path.name
    assert [event.positive for event in read_folder(folder, click_at=4.5).interactions] == [False, True]
    assert read_folder(folder, click_at=4.5).name == f"{tmp_path.name}, click at 4.5"


@pytest.mark.parametrize(
    ("click_at", "words"), [(3, "every rating is a click"), (6, "no rating is a click"), (float("nan"), "no rating is")]
)
def test_a_click_rating_that_divides_nothing_is_refused(click_at, words, tmp_path):
    """All clicks or none teach nothing, and the option is to blame."""
    with pytest.raises(DatasetError, match=words):
        read_folder(movielens(tmp_path), click_at)


def test_data_without_ratings_takes_no_click_rating(tmp_path):
    """The synthetic data has none, and one's own says it in dataset.toml."""
    (tmp_path / "interactions.csv").write_text("user_id,item_id,event_time,clicked\nu,i,1700000000,1\n")
    with pytest.raises(DatasetError, match=r"dataset\.toml"):
        read_folder(tmp_path, click_at=4)
    with pytest.raises(DatasetError, match="synthetic"):
        load_log(None, click_at=4)
