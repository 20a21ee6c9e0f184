"""Book-Crossing's CSV dump."""

from event_data.folder import read_folder

RATINGS = b'"User-ID";"ISBN";"Book-Rating"\n"1";"A1";"0"\n"1";"B2";"5"\n"2";"B2";"4"\n"3";"C3";"10"\n'
BOOKS = (
    b'"ISBN";"Book-Title";"Book-Author";"Year";"Publisher"\n'
    b'"B2";"Caf\xe9 \\"Noir\\"; a novel";"Ann Author";"1999";"A Press"\n'
    b'"Z9";"Unread";"X";"1";"Y"\n'
)


def test_explicit_ratings_become_events_and_five_is_a_click(tmp_path):
    """Implicit zeros say nothing and are left out."""
    (tmp_path / "BX-Book-Ratings.csv").write_bytes(RATINGS)
    log = read_folder(tmp_path)
    assert {(e.user_id, e.item_id, e.positive) for e in log.interactions} == {
        ("1", "B2", True),
        ("2", "B2", False),
        ("3", "C3", True),
    }
    assert {e.user_id: e.grade for e in log.interactions} == {"1": 4 / 9, "2": 3 / 9, "3": 1.0}


def test_books_bring_titles_in_latin_1_and_only_rated_ones_are_kept(tmp_path):
    """Escaped quotes and separators inside quotes belong to the title. Of the rest the author alone is evidence."""
    (tmp_path / "BX-Book-Ratings.csv").write_bytes(RATINGS)
    (tmp_path / "BX-Books.csv").write_bytes(BOOKS)
    (book,) = read_folder(tmp_path).items
    assert (book.item_id, book.title) == ("B2", 'Café "Noir"; a novel')
    assert book.attributes == {"author": "Ann Author"}


def test_the_pseudo_order_is_the_same_every_time_and_strictly_rises(tmp_path):
    """Without time stamps, order follows a checksum of user and book, whatever the order of lines."""
    lines = RATINGS.splitlines(keepends=True)
    orders = []
    for body in (lines[1:], lines[:0:-1]):
        (tmp_path / "BX-Book-Ratings.csv").write_bytes(lines[0] + b"".join(body))
        events = read_folder(tmp_path).interactions
        orders.append([(e.user_id, e.item_id, e.event_time_ms) for e in events])
    assert orders[0] == orders[1]
    assert len({time for _, _, time in orders[0]}) == len(orders[0])


def test_a_click_may_begin_at_another_rating_and_the_log_is_named_for_it(tmp_path):
    """Another meaning of a click is another log by name; event ids, times and order stay."""
    (tmp_path / "BX-Book-Ratings.csv").write_bytes(RATINGS)
    usual, strict = read_folder(tmp_path), read_folder(tmp_path, click_at=8)
    assert (usual.name, strict.name) == ("book-crossing", "book-crossing, click at 8")
    assert {e.item_id for e in strict.interactions if e.positive} == {"C3"}
    assert [(e.event_id, e.event_time_ms) for e in strict.interactions] == [
        (e.event_id, e.event_time_ms) for e in usual.interactions
    ]
    assert read_folder(tmp_path, click_at=5).name == "book-crossing"
