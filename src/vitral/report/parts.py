"""Small pieces of HTML that the report's pages share."""

import html
from collections.abc import Sequence


def escape(text: str) -> str:
    return html.escape(text, quote=True)


def percent(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.1%}"


def meter(ratio: float | None) -> str:
    """A ratio as text and as a bar."""
    return percent(ratio) + ("" if ratio is None else f'<span class=meter><i style="--v:{ratio:.3f}"></i></span>')


def card(title: str, drawn: str, words: str) -> str:
    """A chart or picture (HTML) under its title, and what to see in it (text); "" where nothing is drawn."""
    if not drawn:
        return ""
    below = f"<p class='soft below'>{escape(words)}</p>" if words else ""
    return f"<section><h3>{escape(title)}</h3>{drawn}{below}</section>"


def pair(cards: Sequence[str]) -> str:
    """Cards side by side; "" where there are none."""
    shown = "".join(cards)
    return f"<div class=pair>{shown}</div>" if shown else ""


def calibration_cards(diagram: str, words: str, note: str) -> str:
    """A reliability diagram (HTML), and beside it what it says of these scores (HTML) and how to read it."""
    return pair([
        f"<section><h3>Can its probabilities be trusted?</h3>{diagram}</section>",
        f"<section><h3>Calibration</h3><p>{words}</p><p class=soft>{note}</p></section>",
    ])  # fmt: skip


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """Cells are HTML already; the first `names` columns hold words and are set to the left."""

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = [" class=name" if i < names else "" for i in range(len(cells))]
        inside = "".join(f"<{tag}{kind}>{cell}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))
        return f"<tr>{inside}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<div class=scroll><table class=rows>{line(heads, 'th')}{body}</table></div>"
