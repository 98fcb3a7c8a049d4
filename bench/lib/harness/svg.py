"""Two kinds of chart as SVG text: lines over categories on a logarithmic scale, and stacked bars."""

import math
from html import escape

# Eight colours that stay apart for colour-blind readers (Okabe and Ito), and a dash pattern for the second turn.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d1f"]
DASHES = ["", "6 4", "2 3"]
WIDTH, LEGEND = 860, 200
MARGIN_LEFT, MARGIN_TOP, MARGIN_BOTTOM = 90, 50, 50


def lines(title: str, unit: str, categories: list[str], series: dict[str, list[float | None]], axis: str) -> str:
    """One line a series; a value that is missing leaves a gap."""
    values = [value for line in series.values() for value in line if value]
    if not values:
        return ""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
    high = max(high, low + 1)
    height, plot_height = 460, 460 - MARGIN_TOP - MARGIN_BOTTOM
    right = WIDTH - LEGEND

    def x(index: int) -> float:
        return MARGIN_LEFT + (index + 0.5) * (right - MARGIN_LEFT) / len(categories)

    def y(value: float) -> float:
        return MARGIN_TOP + plot_height * (high - math.log10(value)) / (high - low)

    parts = [_text(MARGIN_LEFT, 28, title, size=16), _text(MARGIN_LEFT, MARGIN_TOP - 8, unit, fill="#555")]
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(_line(MARGIN_LEFT, at, right, at, "#ddd"))
        parts.append(_text(MARGIN_LEFT - 8, at + 4, _plain(10.0**power), anchor="end"))
    for index, category in enumerate(categories):
        parts.append(_text(x(index), height - MARGIN_BOTTOM + 20, category, anchor="middle"))
    parts.append(_text((MARGIN_LEFT + right) / 2, height - 12, axis, anchor="middle", fill="#555"))
    for number, (name, line) in enumerate(series.items()):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]
        for piece in _pieces([(x(i), y(v)) if v else None for i, v in enumerate(line)]):
            points = " ".join(f"{px:.1f},{py:.1f}" for px, py in piece)
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"'
                f' stroke-dasharray="{dash}"/>'
            )
            parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py in piece]
        parts.append(_line(right + 14, MARGIN_TOP + 20 * number, right + 38, MARGIN_TOP + 20 * number, colour, 3, dash))
        parts.append(_text(right + 44, MARGIN_TOP + 20 * number + 4, name))
    return _document(height, parts)


def bars(title: str, unit: str, rows: dict[str, dict[str, float]]) -> str:
    """One bar a row, each of named parts; the sum stands at its end."""
    largest = max((sum(parts.values()) for parts in rows.values()), default=0)
    if not largest:
        return ""
    step, left = 26, 170
    height = MARGIN_TOP + 30 + step * len(rows) + 20
    scale = (WIDTH - left - 80) / largest
    parts = [_text(20, 28, title, size=16)]
    names = list(next(iter(rows.values())))
    for number, name in enumerate(names):
        at = 20 + 130 * number
        parts.append(f'<rect x="{at}" y="42" width="12" height="12" fill="{COLOURS[number]}"/>')
        parts.append(_text(at + 18, 52, name))
    parts.append(_text(WIDTH - 20, 52, unit, anchor="end", fill="#555"))
    for index, (row, values) in enumerate(rows.items()):
        top, at = MARGIN_TOP + 20 + step * index, float(left)
        parts.append(_text(left - 8, top + 14, row, anchor="end"))
        for number, name in enumerate(names):
            width = values.get(name, 0) * scale
            parts.append(f'<rect x="{at:.1f}" y="{top}" width="{width:.1f}" height="18" fill="{COLOURS[number]}"/>')
            at += width
        parts.append(_text(at + 6, top + 14, _plain(sum(values.values()))))
    return _document(height, parts)


def _pieces(points: list[tuple[float, float] | None]) -> list[list[tuple[float, float]]]:
    pieces: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            pieces.append([])
        else:
            pieces[-1].append(point)
    return [piece for piece in pieces if piece]


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 12, fill: str = "#111") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}">{escape(words)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int = 1, dash: str = "") -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dash}"/>'
    )


def _document(height: int, parts: list[str]) -> str:
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif">'
    )
    return "\n".join([opening, f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>', *parts, "</svg>"]) + "\n"
