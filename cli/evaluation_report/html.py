"""Builds HTML in which every text is escaped unless it was built here."""

from __future__ import annotations

from html import escape


class Html(str):
    """Markup that is safe to put into a page as it stands. A plain `str` is text, and is escaped."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: object) -> Html:
    """An element. Attributes of None are left out; `class_` is class, `stroke_width` is stroke-width.

    Args:
        name: of the element.
        children: `Html` goes in as it is, any other text is escaped.
        attributes: their values are escaped.
    """
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    inside = "".join(f' {key}="{escape(str(value))}"' for key, value in named.items())
    return Html(f"<{name}{inside}>{joined(*children)}</{name}>")


def joined(*children: str) -> Html:
    """Children one after the other."""
    return Html("".join(child if isinstance(child, Html) else escape(child) for child in children))
