"""A plot with two axes as inline SVG; colours are those of the page's style sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cli.evaluation_report.html import Html, tag

WIDTH, HEIGHT = 340, 260
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 14, 40
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its range, and how a number on it is written."""

    title: str
    low: float
    high: float
    written: Callable[[float], str]
    ticks: int = 5

    def at(self, value: float) -> float:
        """Where a value lies, as a share of the axis."""
        return (value - self.low) / (self.high - self.low)

    def values(self) -> list[float]:
        """Values with a tick, evenly spread from end to end."""
        return [self.low + (self.high - self.low) * number / (self.ticks - 1) for number in range(self.ticks)]


@dataclass(frozen=True, slots=True)
class Plot:
    """Places values on two axes."""

    x: Axis
    y: Axis

    def place(self, point: Point) -> Point:
        """Pixels of a point."""
        across, up = self.x.at(point[0]), self.y.at(point[1])
        return round(LEFT + across * (WIDTH - LEFT - RIGHT), 1), round(
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1
        )

    def line(self, points: Sequence[Point], class_: str) -> Html:
        """A line through points."""
        places = " ".join(f"{x},{y}" for x, y in map(self.place, points))
        return tag("polyline", points=places, class_=class_)

    def dot(self, point: Point, title: str, class_: str = "dot", radius: float = 3.2) -> Html:
        """A dot that tells its figures when pointed at."""
        x, y = self.place(point)
        return tag("circle", tag("title", title), cx=x, cy=y, r=radius, class_=class_)

    def label(self, point: Point, text: str) -> Html:
        """Text beside a point, on the side with more room."""
        x, y = self.place(point)
        right = x < WIDTH / 2
        return tag(
            "text", text, x=x + (8 if right else -8), y=y + 16, text_anchor="start" if right else "end", class_="name"
        )

    def svg(self, label: str, *marks: Html) -> Html:
        """The picture.

        Args:
            label: says in words what it shows, for those who do not see it.
            marks: what is drawn, the first at the back.
        """
        return tag("svg", *self._axes(), *marks, role="img", aria_label=label, viewBox=f"0 0 {WIDTH} {HEIGHT}")

    def _axes(self) -> list[Html]:
        parts = []
        for value in self.x.values():
            x, _ = self.place((value, self.y.low))
            parts += [
                tag("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_="grid"),
                tag("text", self.x.written(value), x=x, y=HEIGHT - BOTTOM + 15, text_anchor="middle"),
            ]
        for value in self.y.values():
            _, y = self.place((self.x.low, value))
            parts += [
                tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"),
                tag("text", self.y.written(value), x=LEFT - 6, y=y + 4, text_anchor="end"),
            ]
        middle = (TOP + HEIGHT - BOTTOM) / 2
        turned = f"rotate(-90 11 {middle})"
        return [
            *parts,
            tag("text", self.x.title, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 6, text_anchor="middle"),
            tag("text", self.y.title, x=11, y=middle, text_anchor="middle", transform=turned),
        ]
