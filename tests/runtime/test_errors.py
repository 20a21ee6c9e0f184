"""The error tree."""

from __future__ import annotations

import re

from runtime import errors
from runtime.records import TopicPartition


def test_the_tree_in_the_docstring_is_the_tree_in_the_code():
    """The tree in the module's docstring shows every error under its parent."""
    drawn, path = {}, []
    for line in errors.__doc__.splitlines():
        match = re.match(r"([\s│├└─]*)([A-Z]\w+)\s{2,}|^    (ExitstreamError)$", line)
        if match:
            depth = 0 if match[3] else (len(match[1]) - 4) // 4
            path[depth:] = [match[3] or match[2]]
            drawn[path[-1]] = path[-2] if len(path) > 1 else "Exception"
    coded = {
        name: kind.__bases__[0].__name__
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.ExitstreamError)
    }
    assert drawn == coded


def test_offsets_out_of_range_names_the_places_and_what_to_do():
    """The error carries the offsets for the program and a message for users."""
    error = errors.OffsetsOutOfRange({TopicPartition("items", 2): 17})
    assert error.offsets == {TopicPartition("items", 2): 17}
    assert "items[2] at offset 17" in str(error)
    assert "retention" in str(error)
