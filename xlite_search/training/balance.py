"""Class balance under a sampler and a loss: a table for the terminal, a figure for the run.

The four panels are those of the lab's EXP-002, drawn from the closed form of `data/audit.py`, so that they cannot
disagree with what is trained.
"""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xlite_search import records, storage
from xlite_search.data.audit import Audit, audit_of, percent
from xlite_search.data.dataset import Data
from xlite_search.data.samplers import Sampler
from xlite_search.spec import Spec, flatten
from xlite_search.training.losses import Loss

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart by everybody
BLUE, ORANGE, GRAY, RED = "#0072B2", "#E69F00", "#8A8A8A", "#B00020"
SMALLEST = float(np.finfo(float).tiny)
INCHES, DPI = (16.0, 11.0), 100
#: By how much sampler x loss must be less even than the better of both alone to be warned of.
TOLERANCE = 1.05
#: Multiple of its even share of the weight from which such a finding is shown in red.
MUCH = 2.0


def files(audit: Audit, loss: Loss) -> dict[str, bytes]:
    """What a run shows of its sampler and its loss: `balance.json` and `balance.png`."""
    about = audit.as_dict() | {"loss": loss.model_dump(mode="json"), "warnings": list(warnings(audit, loss))}
    return {"balance.json": json.dumps(about, indent=1).encode(), "balance.png": figure(audit, loss)}


def write_artifacts(folder: Path, sampler: Sampler, loss: Loss, data: Data) -> None:
    """Writes table and figure among a run's artifacts."""
    drawn = audit_of(sampler, data.train.labels, data.classes, normal=data.packed.normal)
    for name, content in files(drawn, loss).items():
        storage.write_atomic(folder / records.ARTIFACTS / name, content)


def pos_weights(audit: Audit, loss: Loss) -> NDArray[np.float64]:
    """What the loss counts a positive for, `[class]`: 1 where it has no such weight."""
    import torch

    weight = loss.pos_weight(torch.tensor(audit.positives, dtype=torch.float32), audit.images)
    return np.ones(len(audit.classes)) if weight is None else weight.double().numpy()


def combined(audit: Audit, loss: Loss) -> NDArray[np.float64]:
    """Each finding's share of the positives' weight in the loss, `[class]`, sum 1: what is drawn x what it counts."""
    weight: NDArray[np.float64] = np.array(audit.prevalence) * pos_weights(audit, loss)
    return np.divide(weight, max(weight.sum(), SMALLEST))


def odds(audit: Audit, loss: Loss) -> NDArray[np.float64]:
    """Weight of a finding's positives over that of its negatives, `[class]`. 1 is balanced; well above 1, the cheapest
    answer for an image that tells nothing is "yes"."""
    prevalence = np.array(audit.prevalence)
    ratio: NDArray[np.float64] = prevalence * pos_weights(audit, loss) / np.maximum(1 - prevalence, SMALLEST)
    return ratio


def warnings(audit: Audit, loss: Loss) -> tuple[str, ...]:
    """The sampler's warnings, and one if sampler and loss correct the same imbalance twice."""
    twice = _twice(audit, loss)
    return (*audit.warnings, twice) if twice else audit.warnings


def _twice(audit: Audit, loss: Loss) -> str:
    both, alone = combined(audit, loss), _cv(pos_weights(audit, loss) * np.array(audit.positives))
    if _cv(both) <= TOLERANCE * min(audit.cv, alone):
        return ""
    most = int(both.argmax())
    return (
        f"sampler and pos_weight correct the same imbalance twice: {audit.classes[most]} has {percent(both[most])} of "
        f"the positives' weight, CV {_cv(both):.2f}; sampler alone {audit.cv:.2f}, pos_weight alone {alone:.2f}"
    )


def _cv(values: NDArray[np.float64]) -> float:
    return float(values.std() / values.mean()) if values.any() else 0.0


def table(audits: Sequence[Audit]) -> str:
    """Samplers side by side on the same data, as aligned plain text: figures, prevalence of findings, warnings."""
    numbers = [f"[{number}]" for number in range(1, len(audits) + 1)]
    figures = [["", "sampler", "CV", audits[0].normal, "effective", "distinct", "heaviest"]]
    for number, one in zip(numbers, audits, strict=True):
        amounts = f"{one.cv:.3f}", percent(one.no_finding), f"{one.effective_size:,.0f}", f"{one.distinct:,.0f}"
        figures.append([number, one.sampler, *amounts, f"{one.heaviest:,.1f}"])
    first = audits[0]
    shares = [["finding", "images", *numbers]]
    for column in _common_first(first):
        cells = [percent(one.prevalence[column], 2) for one in audits]
        shares.append([first.classes[column], f"{first.positives[column]:,}", *cells])
    shares.append([first.normal, f"{first.normals:,}", *(percent(one.no_finding, 2) for one in audits)])
    warned = [f"{number} warning: {text}" for number, one in zip(numbers, audits, strict=True) for text in one.warnings]
    return "\n".join([*_aligned(figures, left=2), "", *_aligned(shares, left=1), *([""] if warned else []), *warned])


def _common_first(audit: Audit) -> list[int]:
    return sorted(range(len(audit.classes)), key=lambda column: -audit.positives[column])


def _aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Columns as wide as their widest cell; the first `left` flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]


def figure(audit: Audit, loss: Loss) -> bytes:
    """PNG, 1600 x 1100: the data, the loss's weights, what the sampler draws, sampler x loss; warnings in red."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    page = Figure(figsize=INCHES, dpi=DPI, facecolor="white")
    FigureCanvasAgg(page)
    top = _heading(page, audit, loss)
    axes = page.subplots(2, 2)
    _data(axes[0, 0], audit)
    _loss(axes[0, 1], audit, loss)
    _sampler(axes[1, 0], audit)
    _both(axes[1, 1], audit, loss)
    page.subplots_adjust(left=0.11, right=0.985, bottom=0.035, top=top, wspace=0.33, hspace=0.27)
    png = io.BytesIO()
    page.savefig(png, format="png")
    return png.getvalue()


def _heading(page: Figure, audit: Audit, loss: Loss) -> float:
    """Names, figures and warnings at the top; where the panels may begin, as a share of the height."""
    lines = [line for text in warnings(audit, loss) for line in textwrap.wrap(f"WARNING  {text}", 135)]
    facts = (
        f"CV {audit.cv:.3f}   ·   {audit.normal} {percent(audit.no_finding)}   ·   effective size "
        f"{audit.effective_size:,.0f} of {audit.images:,}   ·   different images an epoch {audit.distinct:,.0f}"
    )
    title = f"sampler {audit.sampler}   x   loss {_title(loss)}"
    page.text(0.02, 0.975, title, size=min(17, 1750 / len(title)), weight="bold", va="center")
    page.text(0.02, 0.945, facts, size=14, va="center")
    for number, line in enumerate(lines):
        page.text(0.02, 0.915 - 0.024 * number, line, size=13, weight="bold", color=RED, va="center")
    return 0.865 - 0.024 * len(lines)


def _title(spec: Spec) -> str:
    settings = flatten(spec.model_dump())
    name = settings.pop("name")
    return ", ".join([str(name), *(f"{key.removesuffix('.name')} = {value}" for key, value in settings.items())])


def _data(axes: Axes, audit: Audit) -> None:
    counts = np.array([*(audit.positives[column] for column in _common_first(audit)), audit.normals])
    axes.set_xscale("log")
    axes.set_xlim(1, 6 * counts.max())
    _bars(axes, audit, counts, [f"{count:,}" for count in counts], _colours(audit))
    _caption(axes, "1  The data", "images with each finding, log scale")


def _loss(axes: Axes, audit: Audit, loss: Loss) -> None:
    weights = pos_weights(audit, loss)[_common_first(audit)]
    if (weights == 1).all():
        _caption(axes, "2  The loss", "what a positive counts for (pos_weight)")
        return _annotate(
            axes, "This loss has no pos_weight: a positive counts for\nwhat a negative does, whatever the finding."
        )
    texts = [*(f"{weight:.3g}" for weight in weights), "has no positives"]
    axes.set_xscale("log")
    axes.set_xlim(min(0.5, weights.min() / 2), 6 * max(weights.max(), 2))
    _bars(axes, audit, np.append(weights, 1), texts, _colours(audit), base=1)
    axes.axvline(1, color="black", linestyle="--", linewidth=1.2)
    _caption(axes, "2  The loss", "what a positive counts for (pos_weight), log scale; dashed: what a negative does")


def _sampler(axes: Axes, audit: Audit) -> None:
    order = _common_first(audit)
    shares = 100 * np.array([*(audit.prevalence[column] for column in order), audit.no_finding])
    plain = 100 * np.array([*(audit.positives[column] for column in order), audit.normals]) / audit.images
    changes = [f"   x {share / max(before, 1e-9):.2g}" for share, before in zip(shares, plain, strict=True)]
    even_handed = np.allclose(shares, plain, rtol=1e-9)
    texts = [f"{s:.2f} %{'' if even_handed else change}" for s, change in zip(shares, changes, strict=True)]
    axes.set_xlim(0, 1.3 * max(shares.max(), plain.max()))
    _bars(axes, audit, shares, texts, _colours(audit, no_finding=RED if audit.starved else GRAY), beyond=plain)
    axes.axvline(shares[:-1].mean(), color="black", linestyle="--", linewidth=1.2, zorder=0.5)
    if not even_handed:
        axes.scatter(plain, range(len(plain)), marker="D", s=34, facecolor="white", edgecolor="black", zorder=3)
    what = "% of draws" if audit.apply == "draw" else "% of the loss's weight"
    change = ", the data's own" if even_handed else " with it, x change; diamond: each image once"
    _caption(axes, "3  The sampler", f"{what}{change}; dashed: even")


def _both(axes: Axes, audit: Audit, loss: Loss) -> None:
    order = _common_first(audit)
    shares, ratio = 100 * combined(audit, loss)[order], odds(audit, loss)[order]
    even = 100 / len(order)
    texts = [f"{share:.1f} %   ({odd:.2g} : 1)" for share, odd in zip(shares, ratio, strict=True)]
    much = MUCH * even if _twice(audit, loss) else np.inf
    colours = [RED if share > much else ORANGE if share > even else BLUE for share in shares]
    axes.set_xlim(0, 1.4 * max(shares.max(), even))
    _bars(axes, audit, np.append(shares, 0), [*texts, "has no positives"], [*colours, GRAY])
    axes.axvline(even, color="black", linestyle="--", linewidth=1.2, zorder=0.5)
    _caption(
        axes, "4  Sampler x loss", "% of positives' weight (orange: above even, red: far above); positives : negatives"
    )


def _colours(audit: Audit, no_finding: str = GRAY) -> list[str]:
    return [BLUE] * len(audit.classes) + [no_finding]


def _annotate(axes: Axes, sentence: str) -> None:
    """A sentence instead of bars that would all be the same."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, sentence, size=14, ha="center", va="center", transform=axes.transAxes)


def _caption(axes: Axes, title: str, explains: str) -> None:
    axes.text(-0.24, 1.075, title, size=14, weight="bold", transform=axes.transAxes)
    axes.text(-0.24, 1.02, explains, size=12, transform=axes.transAxes)


def _bars(
    axes: Axes,
    audit: Audit,
    ends: NDArray[Any],
    texts: Sequence[str],
    colours: Sequence[str],
    *,
    base: float = 0,
    beyond: NDArray[np.float64] | None = None,
) -> None:
    """A bar from `base` for every finding, common to rare, then what has none; text right of it and a near `beyond`."""
    names = [*(audit.classes[column] for column in _common_first(audit)), audit.normal]
    axes.barh(range(len(names)), ends - base, left=base, color=list(colours), height=0.72)
    axes.set_yticks(range(len(names)), names, size=12)
    axes.set_ylim(len(names) - 0.4, -0.6)
    right = np.maximum(ends, max(base, axes.get_xlim()[0]))
    if beyond is not None:
        in_the_way = beyond - right < 0.25 * axes.get_xlim()[1]
        right = np.where(in_the_way, np.maximum(right, beyond), right)
    for place, text in enumerate(texts):
        axes.annotate(
            text,
            (right[place], place),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            size=11,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", labelsize=11)
