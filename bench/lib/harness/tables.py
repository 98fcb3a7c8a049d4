"""Markdown tables and the figures in them."""


def table(head: list[str], rows: list[list[str]]) -> str:
    """The first column is text, the others are figures."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def number(value: float | None) -> str:
    """Three figures are shown of what is small, all whole ones of what is large."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def with_range(spread: dict, render=number) -> str:
    """Median, and in brackets the smallest and the largest."""
    if not spread["count"]:
        return "-"
    if spread["count"] == 1:
        return render(spread["median"])
    return f"{render(spread['median'])} ({render(spread['low'])} to {render(spread['high'])})"


def times(value: float | None) -> str:
    return "-" if value is None else f"{number(value)}x"


def mebibytes(size: float | None) -> str:
    return "-" if size is None else f"{size / 1048576:.1f}"
