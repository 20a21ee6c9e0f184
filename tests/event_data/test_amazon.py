"""Amazon Reviews, both releases."""

import gzip
import json

from event_data.folder import read_folder


def lines(*rows):
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_the_2018_release_is_read_gzipped_with_its_products(tmp_path):
    """Stars become clicks, the brand and the inner categories become attributes, unreviewed products stay out."""
    reviews = lines(
        {"reviewerID": "R1", "asin": "B1", "overall": 5.0, "unixReviewTime": 20, "reviewText": "x"},
        {"reviewerID": "R2", "asin": "B1", "overall": 3.0, "unixReviewTime": 10},
    )
    products = lines(
        {"asin": "B1", "title": "Puzzle", "brand": "Acme", "category": ["Games", "Board", "Puzzles"]},
        {"asin": "B2", "title": "Unseen"},
    )
    (tmp_path / "Games.json.gz").write_bytes(gzip.compress(reviews.encode()))
    (tmp_path / "meta_Games.json.gz").write_bytes(gzip.compress(products.encode()))
    log = read_folder(tmp_path)
    assert [(e.user_id, e.positive, e.event_time_ms) for e in log.interactions] == [
        ("R2", False, 10_000),
        ("R1", True, 20_000),
    ]
    assert [e.grade for e in log.interactions] == [0.5, 1.0]
    assert [(item.item_id, item.title, item.attributes) for item in log.items] == [
        ("B1", "Puzzle", {"brand": "Acme", "categories": "Board, Puzzles"})
    ]


def test_the_2023_release_is_told_by_its_fields(tmp_path):
    """Products go by their parent's id, times are milliseconds already, a null title is none."""
    review = {"user_id": "U", "asin": "B1a", "parent_asin": "B1", "rating": 4.0, "timestamp": 1_600_000_000_123}
    (tmp_path / "Games.jsonl").write_text(lines(review))
    (tmp_path / "meta_Games.jsonl").write_text(lines({"parent_asin": "B1", "title": None, "categories": None}))
    log = read_folder(tmp_path)
    assert [(e.item_id, e.positive, e.event_time_ms) for e in log.interactions] == [("B1", True, 1_600_000_000_123)]
    assert [(item.title, item.attributes) for item in log.items] == [(None, {})]


def test_torn_json_is_counted_and_passed_over(tmp_path):
    """A line that breaks off is skipped; the others are read."""
    review = {"user_id": "U", "parent_asin": "B1", "rating": 4.0, "timestamp": 1}
    (tmp_path / "Games.jsonl").write_text(lines(review, review) + '{"user_id": "U", "parent')
    log = read_folder(tmp_path)
    assert len(log.interactions) == 2
    assert log.skipped == 1
