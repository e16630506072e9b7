"""What is wrong with a data set, found in one pass without changing it: layout, files, copies, classes and labels."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitral.data.copies import Copies, exact_copies, families, near_copies
from vitral.data.dataset import Split
from vitral.data.listers import list_data
from vitral.data.listing import Listing
from vitral.data.options import DataOptions
from vitral.data.progress import OnProgress
from vitral.data.splits import SPLITS
from vitral.errors import VitralError, counted
from vitral.evaluation.probes import features
from vitral.guidance.doctor.findings import (
    SEVERITIES,
    Finding,
    Item,
    class_counts,
    class_findings,
    copy_findings,
    file_findings,
    layout_findings,
    system_files,
)
from vitral.guidance.doctor.reading import Looks, Unusable, look
from vitral.guidance.doctor.suspects import Judgement, described, judge
from vitral.predict import Predictor

LEAST_JUDGED = 20  # images from which labels are judged
RANKED = 0.1  # share of the images that the ranking by suspicion holds
EXTREMES = 4  # example images at each end of a spread


@dataclass
class Diagnosis:
    """What was found in a data set."""

    data: str
    listing: Listing
    looks: Looks
    unusable: dict[int, Unusable]
    findings: list[Finding]
    """The worst first."""
    ranking: list[Item]
    """The tenth of the images whose label looks the most wrong, the worst first; empty where the judge does not know the classes."""
    agreement: float | None
    """Share of the labels that a classifier agrees with which has not seen the images; None without a ranking."""
    precision: float | None
    """Estimated share of wrong labels among those that look wrong; None if none does, or the judge is too weak."""
    extremes: dict[str, list[Item]]
    """Examples: darkest, brightest, smallest, largest, widest, tallest."""
    show_bands: tuple[int, int, int] | None = None
    """As `DataOptions` has it."""

    @property
    def stops_for(self) -> list[str]:
        """The kinds of findings for which training refuses the data."""
        return [finding.kind for finding in self.findings if finding.stops]

    def count(self, severity: str) -> int:
        """Findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)


def diagnose(
    data: str | Path,
    options: DataOptions,
    *,
    predictor: Predictor | None = None,
    reading: OnProgress | None = None,
    comparing: OnProgress | None = None,
) -> Diagnosis:
    """Read every image of a folder, table or built-in data set, and report what is wrong.

    predictor: judge the labels by its features, instead of by what the pixels show. reading, comparing: called with (done, in all) now and then.
    Raises VitralError where there are no such data, or nothing of them can be listed.
    """
    listing = list_data(data, replace(options, skip_unreadable=True))
    looks, unusable = look(listing.images, reading)
    exact = exact_copies(looks.digests)
    near = near_copies(looks.small, looks.digests, looks.least_sides, comparing)
    findings = [
        *layout_findings(listing),
        *(system_files(Path(data)) if Path(data).is_dir() else []),
        *file_findings(listing, looks, unusable, skipping=options.skip_unreadable),
        *copy_findings(listing, looks, [*exact, *near]),
        *class_findings(listing, looks),
    ]
    judged = _judged(listing, looks, [*exact, *near], predictor)
    ranking: list[Item] = []
    if judged is not None and not judged[1].tells:
        findings.append(_unjudged(judged[1], predictor))
        judged = None
    if judged is not None:
        which, judgement = judged
        order = np.argsort(-judgement.suspicion, kind="stable")
        items = {k: _suspect(listing, int(looks.rows[which[k]]), judgement, k) for k in order.tolist()}
        ranking = [items[k] for k in order[: round(RANKED * len(order))].tolist()]
        doubted = [items[k] for k in order.tolist() if judgement.doubted[k]]
        if doubted:
            findings.append(_doubts(doubted, judgement))
        if not judgement.strength.enough:
            findings.append(_weakly_judged(judgement, len(judged[0]), len(listing.labels), predictor))
    findings.sort(key=lambda finding: (SEVERITIES.index(finding.severity), not finding.stops, finding.kind != "labels"))
    agreement = None if judged is None else judged[1].agreement
    accused = judged is not None and bool(judged[1].doubted.any())
    precision = judged[1].strength.precision if judged is not None and accused else None
    return Diagnosis(
        str(data), listing, looks, unusable, findings, ranking, agreement, precision, _extremes(listing, looks),
        options.show_bands,
    )  # fmt: skip


def _judged(
    listing: Listing, looks: Looks, copies: list[Copies], predictor: Predictor | None
) -> tuple[NDArray[np.int64], Judgement] | None:
    """Positions of the judged images among the readable ones, and the judgement; None for too few images or a single class."""
    least = 1 if predictor is None else predictor.card.preprocess.min_size
    which = np.flatnonzero(looks.least_sides >= least)
    targets = listing.targets.take(looks.rows[which])
    if len(which) < LEAST_JUDGED or len(targets.members()) < 2:
        return None
    if predictor is None:
        x = described(looks)[which]
    else:
        rows = looks.rows[which]
        names = [listing.images.names[i] for i in rows.tolist()]
        contents = np.zeros(len(rows), np.uint64)  # no sample order or augmentation is derived from them here
        x = features(predictor, Split("all", names, targets, listing.images, rows, contents))
    return which, judge(x, targets.values, families(len(looks), copies)[which])


def _doubts(doubted: list[Item], judgement: Judgement) -> Finding:
    """The labels that look wrong, and how many of them are, estimated from labels exchanged on purpose."""
    wrong = max(1, min(9, round(10 * judgement.strength.precision)))
    text = f"{counted(len(doubted), 'image')} whose label looks wrong"
    text += f", the likeliest first: about {wrong} of 10 are wrong" if doubted[1:] else f": {10 * wrong} % likely"
    return Finding("labels", "note", text, "look at each, and correct its label if it is wrong", doubted)


def _unjudged(judgement: Judgement, predictor: Predictor | None) -> Finding:
    """The judge cannot tell these classes apart, so its doubts mean nothing."""
    text = (
        f"the labels could not be judged: {_judge(predictor)} does not tell these classes apart: {judgement.in_words()}"
    )
    return Finding("unjudged_labels", "note", text, _other_judge(predictor))


def _weakly_judged(judgement: Judgement, images: int, classes: int, predictor: Predictor | None) -> Finding:
    """The judge is too weak: most labels that it would doubt are right."""
    text = (
        f"wrong labels could not be told from right ones: {_judge(predictor)} agrees with {judgement.agreement:.0%} of the labels, and of 10 "
        f"that it would doubt about {judgement.strength.right_of_ten} are right"
    )
    more = "more images like these would hardly help"
    if judgement.times is not None:
        more = f"about {max(1, round((judgement.times - 1) * images / classes)):,} more images a class would help"
    return Finding("unjudged_labels", "note", text, f"{_other_judge(predictor)}; {more}")


def _judge(predictor: Predictor | None) -> str:
    what = "the pixels" if predictor is None else "the model's features"
    return f"a classifier on {what}, which has not seen the images,"


def _other_judge(predictor: Predictor | None) -> str:
    remedy = "let a model judge them: --model MODEL" if predictor is None else "let another model judge them"
    return f"{remedy}, one that was trained on other images like these"


def _suspect(listing: Listing, row: int, judgement: Judgement, k: int) -> Item:
    likely = listing.labels[int(judgement.likely[k])]
    if listing.targets.one_class:
        note = f"labelled {listing.describe(row)}, looks like {likely}"
    else:
        there = likely in listing.of(row)
        note = f"labelled {listing.describe(row)}; {likely} {'looks wrong' if there else 'looks missing'}"
    return Item((listing.images.names[row],), f"{note} ({judgement.suspicion[k]:+.2f})", (row,))


def _extremes(listing: Listing, looks: Looks) -> dict[str, list[Item]]:
    """The images at both ends of brightness, size and shape."""
    if not len(looks):
        return {}
    light: NDArray[np.floating] = looks.light
    pixels = np.array([info.height * info.width for info in looks.infos], np.float64)
    wide = np.array([info.width / info.height for info in looks.infos])
    by: dict[str, NDArray[np.floating]] = {
        "darkest": light,
        "brightest": -light,
        "smallest": pixels,
        "largest": -pixels,
        "widest": -wide,
        "tallest": wide,
    }
    return {
        what: [_example(listing, looks, light, k) for k in np.argsort(value, kind="stable")[:EXTREMES].tolist()]
        for what, value in by.items()
        if np.ptp(value) > 0
    }


def _example(listing: Listing, looks: Looks, light: NDArray, k: int) -> Item:
    row, info = int(looks.rows[k]), looks.infos[k]
    note = f"{info.width} x {info.height} pixels, brightness {light[k] / 255:.0%}"
    return Item((listing.images.names[row],), note, (row,))


def next_commands(diagnosis: Diagnosis, words: str, program: str) -> list[str]:
    """The next command: training, or doctor again where errors have to be mended first. words: the data and options as typed."""
    stopping = [finding for finding in diagnosis.findings if finding.stops]
    if not stopping:
        return [f"{program} train {words}"]
    if all("--skip-unreadable" in finding.remedy for finding in stopping):
        return [f"{program} train {words} --skip-unreadable"]
    return [f"{program} doctor {words}"]


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as plain values; the schema is stable, keys are only ever added.

    data, name: what was asked for, and what it is called. images: {listed, readable}. splits: {split: images}, empty where training would make them.
    classes: [{name, images, splits: {split: images}}], in the order of the classes; images that cannot be read do not
    count. findings: [{kind, severity, count, text, remedy, stops, items: [{names, note}]}], the worst first; severity is error, warning or
    note; count is the number of items; stops says whether training refuses the data for it. training: {starts, stops_for: [kind]}. labels:
    {agreement, precision, ranking: [{names, note}]}, the tenth of the images whose labels look the most wrong; agreement is null where they could
    not be judged, precision (about what share of the finding `labels` is wrong) where there is no such finding. spread: {height, width,
    brightness: {least, median, most}}, in pixels and 0 to 1; empty if nothing could be read. extremes: {darkest, brightest, smallest, largest,
    widest, tallest: [{names, note}]}, without those in which all images are alike.
    """
    listing, looks = diagnosis.listing, diagnosis.looks

    def plain(items: list[Item]) -> list[dict[str, Any]]:
        return [{"names": list(item.names), "note": item.note} for item in items]

    return {
        "data": diagnosis.data,
        "name": listing.name,
        "images": {"listed": len(listing.images.names), "readable": len(looks)},
        "splits": {split: len(rows) for split, rows in split_rows(listing, looks).items()},
        "classes": class_rows(listing, looks),
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.severity,
                "count": len(finding.items),
                "text": finding.text,
                "remedy": finding.remedy,
                "stops": finding.stops,
                "items": plain(finding.items),
            }
            for finding in diagnosis.findings
        ],
        "training": {"starts": not diagnosis.stops_for, "stops_for": diagnosis.stops_for},
        "labels": {
            "agreement": diagnosis.agreement,
            "precision": diagnosis.precision,
            "ranking": plain(diagnosis.ranking),
        },
        "spread": spread(looks),
        "extremes": {what: plain(items) for what, items in diagnosis.extremes.items()},
    }


def split_rows(listing: Listing, looks: Looks) -> dict[str, NDArray[np.int64]]:
    """The readable images of each split that the data name."""
    given = np.array(listing.given or [])
    return {split: looks.rows[given[looks.rows] == split] for split in SPLITS if split in given}


def class_rows(listing: Listing, looks: Looks) -> list[dict[str, Any]]:
    """The readable images of each class, in all and by the splits that the data name."""
    total = class_counts(listing, looks.rows)
    inside = {split: class_counts(listing, rows) for split, rows in split_rows(listing, looks).items()}
    return [
        {"name": label, "images": total[label], "splits": {split: counts[label] for split, counts in inside.items()}}
        for label in listing.labels
    ]


def spread(looks: Looks) -> dict[str, dict[str, float]]:
    """Least, median and most of the images' heights and widths in pixels, and of their brightness, 0 to 1."""
    if not len(looks):
        return {}
    values = {
        "height": [info.height for info in looks.infos],
        "width": [info.width for info in looks.infos],
        "brightness": (looks.light / 255).round(4).tolist(),
    }
    return {
        what: {"least": float(min(each)), "median": float(np.median(each)), "most": float(max(each))}
        for what, each in values.items()
    }


def check_page_place(page: Path, data: str) -> None:
    """Raise VitralError if the page would lie among the data, which doctor never changes."""
    root = Path(data)
    if root.is_dir() and page.resolve().is_relative_to(root.resolve()):
        raise VitralError(f"{page}: lies in the data, which doctor never changes; name a place elsewhere with --out")
    if root.is_file() and page.resolve() == root.resolve():
        raise VitralError(f"{page}: is the table itself, which doctor never changes; name another file with --out")
