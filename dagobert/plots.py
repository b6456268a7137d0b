"""Numbers → pictures: SVG that is the same bytes every time and takes its colours from the page it stands in.

Drawn by matplotlib on a bare Figure (no global state, no window), then rewritten: text stays text in the page's own font, and
`PALETTE`'s stand-in colours become CSS variables, so that one picture serves light, dark and print.
"""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

INK, GRID = "#010101", "#020202"
SERIES = ("#030303", "#040404", "#050505", "#060606", "#070707", "#080808")
PALETTE = {INK: "currentColor", GRID: "var(--grid)", **{colour: f"var(--s{i})" for i, colour in enumerate(SERIES, 1)}}
_FONT_SIZE = 9
_BIG = 30  # classes from which a confusion matrix is no picture any more
_NUMBERED = 12  # classes up to which its cells carry numbers


def picture(name: str, alt: str, draw: Callable[[Axes], None], width: float = 4.6, height: float = 3.0) -> str:
    """One SVG element.

    Args:
        name: unique in the page; ids inside the picture derive from it.
        alt: what the picture shows, for those who cannot see it.
        draw: puts the picture on the axes.
        width: inches; the page scales the picture.
        height: inches.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # The page's font writes the text; matplotlib's own only measures it and need not hold every script.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()
        cast(Any, matplotlib.rcParams).update(_style(name))
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(buffer.getvalue(), alt)


def _style(name: str) -> dict[str, Any]:
    return {
        "svg.hashsalt": name,
        "svg.fonttype": "none",
        "text.parse_math": False,  # a label may hold dollar signs
        "font.size": _FONT_SIZE,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": GRID,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": _FONT_SIZE,
        "xtick.color": GRID,
        "ytick.color": GRID,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "axes.grid": True,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "legend.frameon": False,
        "legend.fontsize": _FONT_SIZE,
        "lines.linewidth": 1.8,
    }


def _for_page(svg: str, alt: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+(?:xmlns(?::\w+)?|version)="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1)
    svg = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1inherit", svg)
    svg = re.sub(r"font: (?:\w+ )*?([\d.]+px) inherit", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    for stand_in, colour in PALETTE.items():
        svg = svg.replace(f": {stand_in}", f": {colour}")
    svg = re.sub(r"\n\s*", "\n", svg).strip()
    label = html.escape(alt, quote=True)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def shown(name: str, most: int = 24) -> str:
    """A class name as a picture's label: cut where it is long."""
    return name if len(name) <= most else name[: most - 1] + "…"


def intervals(name: str, rows: Sequence[tuple[str, float, float, float]], alt: str, chance: float | None = None) -> str:
    """Point and interval of each (label, value, low, high), in per cent; `chance` is drawn as a broken line."""

    def draw(axes: Axes) -> None:
        for i, (_, value, low, high) in enumerate(rows):
            colour = SERIES[min(i, len(SERIES) - 1)]
            axes.plot([100 * low, 100 * high], [-i, -i], color=colour, linewidth=3.5, alpha=0.45, solid_capstyle="butt")
            axes.plot([100 * value], [-i], "o", color=colour, markersize=7)
            axes.annotate(f"{100 * value:.1f} %", (100 * value, -i), (0, 8), textcoords="offset points", ha="center")
        axes.set_yticks([-i for i in range(len(rows))], [shown(r[0], 40) for r in rows])
        axes.set_ylim(-len(rows) + 0.4, 0.7)
        lows, highs = [r[2] for r in rows], [r[3] for r in rows]
        if chance is not None and chance > min(lows) - 0.15:
            axes.axvline(100 * chance, color=INK, linestyle=":", linewidth=1)
            lows.append(chance)
        axes.set_xlim(100 * max(0, min(lows) - 0.02), 100 * min(1.002, max(highs) + 0.02))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("accuracy on the test rows, %")

    return picture(name, alt, draw, height=0.8 + 0.42 * len(rows))


def loss_curves(steps: dict[str, tuple[FloatArray, FloatArray]], alt: str) -> str:
    """Training and validation loss by optimizer step: {split: (steps, losses)}."""

    def draw(axes: Axes) -> None:
        for i, (split, (x, y)) in enumerate(steps.items()):
            few = split != "training"
            axes.plot(x, y, "o-" if few else "-", color=SERIES[i], alpha=0.4 if not few else 1, label=split, markersize=5)
            if not few and len(x) >= 20:
                axes.plot(*_smooth(x, y), color=SERIES[i], label="training, running mean")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss")
        axes.legend()

    return picture("loss", alt, draw)


def _smooth(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean over a twentieth of the steps, placed at the middle of what it averages."""
    width = max(5, len(y) // 20)
    kernel = np.ones(width) / width
    return np.convolve(x, kernel, mode="valid"), np.convolve(y, kernel, mode="valid")


def confusion(matrix: IntArray, names: Sequence[str], alt: str) -> str | None:
    """Rows by actual (down) and predicted (across) class, shaded by the share of the actual class.

    None with more than 30 classes.
    """
    n = len(names)
    if n > _BIG:
        return None
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)

    def draw(axes: Axes) -> None:
        from matplotlib.patches import Rectangle

        for i in range(n):
            for j in range(n):
                colour = SERIES[0] if i == j else SERIES[1]
                if share[i, j] > 0:
                    opacity = 0.08 + 0.52 * share[i, j]
                    axes.add_patch(Rectangle((j, i), 1, 1, facecolor=colour, alpha=float(opacity), linewidth=0))
                if n <= _NUMBERED:
                    axes.text(j + 0.5, i + 0.5, f"{matrix[i, j]:,}", ha="center", va="center")
        axes.set_xlim(0, n)
        axes.set_ylim(n, 0)
        ticks = np.arange(n) + 0.5
        size = _FONT_SIZE if n <= _NUMBERED else 8
        long = n > 3 or max(map(len, names)) > 12
        axes.set_xticks(ticks, [shown(name, 16) for name in names], rotation=90 if long else 0, fontsize=size)
        axes.set_yticks(ticks, [shown(name, 16) for name in names], fontsize=size)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("actual")
        axes.set_aspect("equal" if n > 3 else "auto")

    side = min(7.0, max(3.0, 1.6 + 0.34 * n))
    return picture("confusion", alt, draw, width=max(4.6, side), height=side)


def curves(
    name: str,
    lines: Iterable[tuple[str, FloatArray, FloatArray]],
    labels: tuple[str, str],
    alt: str,
    *,
    diagonal: bool = False,
    steps: bool = False,
) -> str:
    """Lines in the unit square: (name, x, y) each."""

    def draw(axes: Axes) -> None:
        if diagonal:
            axes.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1)
        for i, (label, x, y) in enumerate(lines):
            axes.plot(
                x, y, color=SERIES[i % len(SERIES)], label=shown(label, 30), drawstyle="steps-post" if steps else "default"
            )
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.02)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.legend(loc="lower left" if not diagonal else "lower right")

    return picture(name, alt, draw, height=3.4)


def reliability(confidence: FloatArray, accuracy: FloatArray, count: IntArray, lowest: float, alt: str) -> str:
    """Accuracy against confidence, a point a bin, its area by the bin's rows.

    Shapes (bins,); `lowest` is the least confidence possible, 1/C.
    """
    filled = count > 0

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1)
        axes.plot(confidence[filled], accuracy[filled], color=SERIES[0], linewidth=1, alpha=0.6)
        area = 20 + 300 * count[filled] / max(count.sum(), 1)
        axes.scatter(confidence[filled], accuracy[filled], s=area, color=SERIES[0], alpha=0.75, linewidth=0)
        axes.set_xlim(max(0.0, min(lowest, 0.5) - 0.03), 1.03)
        axes.set_ylim(max(0.0, min([lowest, *accuracy[filled]]) - 0.05), 1.05)
        axes.set_xlabel("confidence (probability of the predicted class)")
        axes.set_ylabel("share that was right")

    return picture("reliability", alt, draw, height=3.4)


def coverage(share: FloatArray, accuracy: FloatArray, alt: str) -> str:
    """Accuracy among the surest rows, against the share of rows answered."""

    def draw(axes: Axes) -> None:
        axes.plot(100 * share, 100 * accuracy, color=SERIES[0])
        axes.set_xlim(0, 101)
        enough = accuracy[share >= 0.05]
        lowest = float(enough.min()) if len(enough) else 0.0
        axes.set_ylim(100 * lowest - 2, 101)
        axes.set_xlabel("share answered, surest first, %")
        axes.set_ylabel("of these right, %")

    return picture("coverage", alt, draw, height=3.4)


def lengths(edges: FloatArray, rows: IntArray, max_length: int | None, alt: str) -> str:
    """Histogram of text lengths in tokens; a line where texts are cut."""

    def draw(axes: Axes) -> None:
        axes.bar(edges[:-1], rows, width=np.diff(edges), align="edge", color=SERIES[0], alpha=0.7, linewidth=0)
        if max_length is not None and max_length < edges[-1]:
            axes.axvline(max_length, color=SERIES[1], linewidth=1.5)
            above: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "center"}
            axes.annotate(f"cut at {max_length}", (max_length, 1), (0, 3), **above)
        axes.set_xlim(0, edges[-1])
        axes.set_xlabel("tokens")
        axes.set_ylabel("texts")

    return picture("lengths", alt, draw)


def length_bins(tokens: IntArray, most: int = 40) -> tuple[FloatArray, IntArray]:
    """(edges, rows) of a histogram with a round bin width; the longest 1 % share the last bin."""
    if len(tokens) == 0:
        return np.array([0.0, 1.0]), np.zeros(1, dtype=np.int64)
    top = max(float(np.quantile(tokens, 0.99)), 1.0)
    raw = top / most
    scale = 10 ** math.floor(math.log10(max(raw, 1)))
    width = next(m * scale for m in (1, 2, 5, 10) if m * scale >= raw)
    bins = math.ceil(top / width)
    edges = np.arange(bins + 1, dtype=np.float64) * width
    count = np.bincount(np.minimum(tokens // width, bins - 1).astype(np.int64), minlength=bins)
    return edges, count.astype(np.int64)
