"""The user's past items nearest to each candidate, by any similarity: that of texts, or that of embeddings.

Texts are compared as the field does it without a language model: TF-IDF vectors of the words of title and attributes,
and their cosine (Salton & Buckley 1988). The vectors are made once, like the graph's embeddings, or anew at every
request, as a language model would have to read them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction.text import TfidfVectorizer

from models.evidence import PastItem
from models.text import item_text
from schemas.messages import Item
from worker.state_store.columns import Rows, normalised
from worker.state_store.rows import UNKNOWN_ROW
from worker.state_store.tables import Tables

Similarities = Callable[[Rows, Rows], NDArray[np.float32]]
"""From table rows of candidates and of past items to cosines (candidates, past items)."""
_WORDS: Final = r"\w+"


class NearestPast:
    """Finds the past items.

    Args:
        tables: histories, and what is known of the items.
        similarities: how near items are to each other; those that are not above 0 are not near.
    """

    def __init__(self, tables: Tables, similarities: Similarities) -> None:
        self._tables = tables
        self._similarities = similarities

    def of(self, user_id: str, item_ids: Sequence[str], count: int) -> list[list[PastItem]]:
        """Per candidate the `count` nearest, nearest first; of an item met twice the latest time."""
        items, users = self._tables.items, self._tables.users
        user = users.ids.row(user_id)
        candidates = np.fromiter((items.ids.row(item_id) for item_id in item_ids), np.int64, len(item_ids))
        if user == UNKNOWN_ROW or not users.histories.lengths[user]:
            return [[] for _ in item_ids]
        packed, _ = users.histories.of(user)
        latest = len(packed) - 1 - np.unique((packed >> 1)[::-1], return_index=True)[1]
        places = np.sort(latest)
        rows, positive = packed[places] >> 1, (packed[places] & 1).astype(bool).tolist()
        near = self._similarities(candidates, rows)  # (candidates, places)
        near[candidates == UNKNOWN_ROW] = 0.0
        order = np.argsort(-near, axis=1, kind="stable")[:, :count]
        values = np.take_along_axis(near, order, axis=1)
        facts = items.facts(np.unique(rows[order[values > 0]]))
        return [
            [
                PastItem(facts[int(rows[place])], positive[place], similarity)
                for place, similarity in zip(*of_one, strict=True)
                if similarity > 0
            ]
            for of_one in zip(order.tolist(), values.tolist(), strict=True)
        ]


def embedding_similarities(tables: Tables) -> Similarities:
    """By the graph's embeddings, as they are at the time of asking."""

    def similarities(candidates: Rows, past: Rows) -> NDArray[np.float32]:
        embeddings = tables.items.embeddings
        return normalised(embeddings[candidates]) @ normalised(embeddings[past]).T

    return similarities


def text_similarities(tables: Tables, items: Sequence[Item]) -> Similarities:
    """By their words; every item's vector is made once."""
    vectors = _TextVectors(tables, items)

    def similarities(candidates: Rows, past: Rows) -> NDArray[np.float32]:
        return _cosines(vectors.kept(candidates), vectors.kept(past))

    return similarities


def read_text_similarities(tables: Tables, items: Sequence[Item]) -> Similarities:
    """By their words, read anew at every request: nothing is kept but the words' weights."""
    vectors = _TextVectors(tables, items)

    def similarities(candidates: Rows, past: Rows) -> NDArray[np.float32]:
        return _cosines(vectors.read(candidates), vectors.read(past))

    return similarities


class _TextVectors:
    """TF-IDF vectors of the catalogue's texts, by table row; an item without text has an empty one."""

    def __init__(self, tables: Tables, items: Sequence[Item]) -> None:
        self._ids = tables.items.ids
        self._texts = {item.item_id: item_text(item.title, item.attributes) for item in items}
        self._vectorizer = TfidfVectorizer(token_pattern=_WORDS, sublinear_tf=True, dtype=np.float32)
        texts = list(self._texts.values())
        self._vectorizer.fit(texts if any(texts) else ["no text"])  # without a single word there is no vocabulary
        vectors: csr_matrix = self._vectorizer.transform(texts)
        empty = csr_matrix((1, vectors.shape[1]), dtype=np.float32)
        self._vectors: csr_matrix = vstack([vectors, empty], format="csr")
        self._places = {item_id: place for place, item_id in enumerate(self._texts)}

    def kept(self, rows: Rows) -> csr_matrix:
        unknown = len(self._places)
        return self._vectors[[self._places.get(item_id, unknown) for item_id in self._ids_of(rows)]]

    def read(self, rows: Rows) -> csr_matrix:
        return self._vectorizer.transform([self._texts.get(item_id, "") for item_id in self._ids_of(rows)])

    def _ids_of(self, rows: Rows) -> list[str]:
        return ["" if row == UNKNOWN_ROW else self._ids.id_of(row) for row in rows.tolist()]


def _cosines(ones: csr_matrix, others: csr_matrix) -> NDArray[np.float32]:
    """Of vectors of length 1, or 0."""
    return np.asarray((ones @ others.T).toarray(), np.float32)
