"""MovieLens in its three layouts."""

import pytest

from event_data.folder import read_folder
from runtime.errors import DatasetError

FLAGS = "0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0"


def write(folder, **files):
    """Write files, whose names have `_dot_` for the dot."""
    for name, content in files.items():
        (folder / name.replace("_dot_", ".")).write_bytes(content.encode("latin-1"))
    return folder


def facts(log):
    """What matters of each event."""
    return [(e.user_id, e.item_id, e.positive, e.event_time_ms) for e in log.interactions]


def test_100k_is_read_in_order_of_time_with_titles_and_genres(tmp_path):
    """Ratings of 4 and more are clicks, seconds become milliseconds, genre flags become words."""
    write(
        tmp_path,
        u_dot_data="1\t10\t4\t200\n2\t10\t3\t100\n",
        u_dot_item=f"10|Amélie, Toy Story (1995)|01-Jan-1995||http://x|{FLAGS}\n",
    )
    log = read_folder(tmp_path)
    assert facts(log) == [("2", "10", False, 100_000), ("1", "10", True, 200_000)]
    assert [event.grade for event in log.interactions] == [0.5, 0.75]
    assert log.items[0].title == "Amélie, Toy Story (1995)"
    assert log.items[0].attributes == {"genres": "Animation, Children's, Comedy"}


def test_dat_files_of_1m_are_read(tmp_path):
    """Fields end at double colons."""
    write(
        tmp_path,
        ratings_dot_dat="1::7::5::978300760\n",
        movies_dot_dat="7::Sabrina: A Film (1995)::Comedy|Romance\n",
    )
    log = read_folder(tmp_path)
    assert facts(log) == [("1", "7", True, 978_300_760_000)]
    assert log.items[0].attributes == {"genres": "Comedy, Romance"}


def test_csv_files_are_read_with_quotes_and_without_their_header(tmp_path):
    """The header is no event, a quoted title may hold commas, a film without genres has no attributes."""
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,3,3.5,5\n")
    (tmp_path / "movies.csv").write_text('movieId,title,genres\n3,"Trip, The (2002)",(no genres listed)\n')
    log = read_folder(tmp_path)
    assert facts(log) == [("1", "3", False, 5_000)]
    assert log.interactions[0].grade == 3.0 / 4.5  # from half a star to five
    assert log.items[0].title == "Trip, The (2002)"
    assert log.items[0].attributes == {}


def test_equal_times_keep_the_files_order(tmp_path):
    """Sorting is stable."""
    write(tmp_path, u_dot_data="1\t1\t4\t9\n2\t1\t4\t9\n3\t1\t4\t9\n", u_dot_item=f"1|A|||{FLAGS}\n")
    assert [event.user_id for event in read_folder(tmp_path).interactions] == ["1", "2", "3"]


def test_malformed_lines_are_counted_and_the_first_is_told(tmp_path):
    """Malformed lines are skipped; the others are read."""
    write(
        tmp_path,
        u_dot_data="1\t1\t4\t9\nrubbish\n1\t2\tnan\t9\n1\t2\t5\t10\n1\t3\t5\t11\n",
        u_dot_item=f"1|A|||{FLAGS}\n",
    )
    log = read_folder(tmp_path)
    assert len(log.interactions) == 3
    assert log.skipped == 2
    assert "u.data line 2" in log.first_skipped


def test_a_file_that_is_mostly_malformed_is_refused(tmp_path):
    """If most lines are malformed, it is the wrong file."""
    write(tmp_path, u_dot_data="a,b\nc,d\n1\t1\t4\t9\n", u_dot_item=f"1|A|||{FLAGS}\n")
    with pytest.raises(DatasetError, match=r"u\.data: 2 of 3 lines"):
        read_folder(tmp_path)
