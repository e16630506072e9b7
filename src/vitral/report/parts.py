"""Small pieces of HTML that the report's pages share."""

import html
from collections.abc import Sequence


def escape(text: str) -> str:
    return html.escape(text, quote=True)


def percent(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.1%}"


def meter(ratio: float | None) -> str:
    """A ratio in words and as a bar."""
    return percent(ratio) + ("" if ratio is None else f'<span class=meter><i style="--v:{ratio:.3f}"></i></span>')


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """Cells are HTML already; the first `names` columns hold words and are set to the left."""

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = [" class=name" if i < names else "" for i in range(len(cells))]
        inside = "".join(f"<{tag}{kind}>{cell}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))
        return f"<tr>{inside}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<div class=scroll><table class=rows>{line(heads, 'th')}{body}</table></div>"
