"""The command line: thin commands over the public API.

Machine-readable output goes to stdout, everything for people to stderr. A `VitralError` is one message and exit code 2. Torch is imported only by the
commands that compute, so that help answers at once.
"""

import csv
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from vitral.errors import VitralError

if TYPE_CHECKING:
    from vitral.predict import Prediction

OVERVIEW = """\
vitral {version}: Vision Transformers from a folder of images to a trained model, its predictions and a picture of what it looked at

usage: vitral COMMAND ...

  train      train a ViT on a folder, table or built-in data set     vitral train photos/ --time 10m --out runs/photos
  evaluate   score a run or model on data                            vitral evaluate runs/photos photos/ --json
  predict    label images, folders or a list on stdin                vitral predict runs/photos new/*.jpg --format csv
  explain    draw what the model attends to in one image             vitral explain runs/photos cat.jpg -o cat.png
  models     list the models that can be trained                     vitral models
  report     write a finished run's page again                       vitral report runs/photos

Built-in data: digits (needs nothing), fashion-mnist, elpv. `vitral COMMAND --help` shows a command's options.
"""


def main(arguments: list[str] | None = None) -> None:
    """The entry point; exits with 0, 1 (some images failed), 2 (an error the user can mend) or 130 (interrupted)."""
    words = sys.argv[1:] if arguments is None else arguments
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": train, "evaluate": evaluate, "predict": predict, "explain": explain, "models": models, "report": report,
    }  # fmt: skip
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            import vitral

            print(OVERVIEW.format(version=vitral.__version__))
            sys.exit(0)
        if words[0] in ("-V", "--version"):
            import vitral

            print(vitral.__version__)
            sys.exit(0)
        if words[0] not in commands:
            import difflib

            near = difflib.get_close_matches(words[0], commands, n=1)
            raise VitralError(
                f"{words[0]!r} is not a command" + (f"; did you mean {near[0]!r}?" if near else "; see vitral --help")
            )
        sys.exit(commands[words[0]](words[1:]))
    except VitralError as error:
        print(f"vitral: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("vitral: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def parse(kind: type, command: str, words: list[str]):  # type: ignore[no-untyped-def]
    """`words` as an instance of the dataclass `kind`, whose docstring is the command's help."""
    import tyro

    return tyro.cli(kind, prog=f"vitral {command}", args=words, config=(tyro.conf.OmitArgPrefixes,))


def train(words: list[str]) -> int:
    import dataclasses

    import tyro

    from vitral.training.config import Recipe, read_recipe

    base = Recipe()
    for i, word in enumerate(words):
        if word == "--recipe" and i + 1 < len(words):
            base = read_recipe(words[i + 1])
        elif word.startswith("--recipe="):
            base = read_recipe(word.partition("=")[2])

    @dataclass
    class Train:
        """Train a Vision Transformer on labelled images.

        DATA is a folder of class folders (or of train/, val/ and test/ with class folders), a CSV, TSV or Parquet table with columns image and
        label, or a built-in name: digits, fashion-mnist, elpv. What is not said is decided from the data, with the reason.

        Example: vitral train photos/ --time 10m --out runs/photos
        """

        data: Annotated[str | None, tyro.conf.Positional] = None
        """Folder, table or built-in name."""
        recipe: Path | None = None
        """TOML file of settings; any flag below overrides it."""
        out: Path | None = None
        """Run folder to make; default runs/ and the data's name."""
        resume: Path | None = None
        """Go on with the run in this folder, exactly where its last checkpoint left it; only --workers may change."""
        settings: Recipe = field(default_factory=lambda: base)

    given = parse(Train, "train", words)
    from vitral.training.display import Display
    from vitral.training.run import resume, start

    display = Display()
    try:
        if given.resume is not None:
            changed = [w for w in words if w.startswith("--") and w.partition("=")[0] not in ("--resume", "--workers")]
            if changed or given.data is not None:
                raise VitralError(
                    f"--resume keeps the run's data and recipe; leave out {' '.join(changed) or given.data}, or start a new run"
                )
            run = resume(given.resume, display, given.settings.train.workers)
        else:
            if given.data is None:
                raise VitralError("train: which data? Give a folder, a table or a built-in name such as digits")
            budget = {n: getattr(given.settings.train, n) for n in ("epochs", "steps", "time") if _flag_given(words, n)}
            settings = given.settings
            if budget:  # a budget on the command line replaces the recipe's of another kind
                only = {"epochs": None, "steps": None, "time": None} | budget
                settings = dataclasses.replace(settings, train=dataclasses.replace(settings.train, **only))
            out = given.out or Path("runs") / (Path(given.data).stem or "run")
            run = start(given.data, settings, out, display, shlex.join(["vitral", "train", *words]))
        finished = run.train()
        if not finished:
            display.say(
                f"stopped and saved at step {run.loop.progress.step}; go on with: vitral train --resume {run.folder}"
            )
            return 130
        split = run.scored_split
        if split is None:
            return 0
        display.say("writing the report")
        from vitral.report.run import report_run

        page = report_run(run.folder, run.data)
    finally:
        display.close()
    folder, data, image = (
        shlex.quote(str(x))
        for x in (run.folder, run.source, run.data.splits[split].path(0) or run.folder / "example.png")
    )
    print(
        f"\nNext:\n  vitral predict {folder} {image}\n  vitral explain {folder} {image} -o {folder}/attention.png\n"
        f"  vitral evaluate {folder} {data} --split {split}\nReport: {page}",
        file=sys.stderr,
    )
    return 0


def _flag_given(words: list[str], name: str) -> bool:
    return any(w == f"--{name}" or w.startswith(f"--{name}=") for w in words)


def evaluate(words: list[str]) -> int:
    import tyro

    from vitral.data.options import DataOptions

    @dataclass
    class Evaluate:
        """Score a model on labelled images: top-1 and top-5, precision, recall and F1 a class, confusion, calibration error, intervals.

        Example: vitral evaluate runs/photos photos/ --split test --json > scores.json
        """

        model: Annotated[Path, tyro.conf.Positional]
        """Run folder or model file."""
        data: Annotated[str, tyro.conf.Positional]
        """Folder, table or built-in name."""
        split: Literal["train", "val", "test", "all"] | None = None
        """Default: test if these are the data that the model was trained on or they give a test split, else all."""
        json: bool = False
        """Print JSON on stdout."""
        batch_size: int = 64
        workers: int = 0
        precision: Literal["auto", "fp32", "bf16"] = "fp32"
        options: DataOptions = field(default_factory=DataOptions)

    given = parse(Evaluate, "evaluate", words)
    from vitral.data.sources import open_data
    from vitral.evaluation.evaluate import evaluate as score
    from vitral.evaluation.evaluate import merged
    from vitral.predict import load
    from vitral.training.config import stored_data_options
    from vitral.training.display import Display
    from vitral.training.machine import choose_device, choose_precision

    predictor = load(given.model)
    options = given.options if given.options != DataOptions() else stored_data_options(predictor.card.recipe)
    display = Display()
    try:
        data = open_data(given.data, options, progress=lambda n, total: display.count("checking images", n, total))
        same = predictor.card.data.get("fingerprint") == data.fingerprint
        name = given.split or ("test" if "test" in data.splits and (same or "test" in data.given) else "all")
        split = merged(data) if name == "all" else data.splits.get(name)
        if split is None:
            raise VitralError(f"{given.data}: has no {name} split; there are {', '.join(data.splits)} and all")
        display.say(f"scoring {len(split):,} images ({name})")
        for note in data.notes:
            display.say(f"- {note}")
        result, _ = score(
            predictor, split, data.labels, batch_size=given.batch_size, workers=given.workers,
            precision=choose_precision(given.precision, choose_device("cpu")),
            progress=lambda n, total: display.count("evaluating", n, total),
        )  # fmt: skip
    finally:
        display.close()
    print(result.summary(), file=sys.stderr)
    if given.json:
        print(json.dumps({"data": given.data, "split": name, "fingerprint": data.fingerprint, **result.to_json()}))
    else:
        print(result.table())
    return 0


def predict(words: list[str]) -> int:
    import tyro

    @dataclass
    class Predict:
        """Label images, one row each as they are read; an unreadable one gets its error in its row, and the exit code is then 1.

        Example: vitral predict runs/photos new/ --format csv > labels.csv
        """

        model: Annotated[Path, tyro.conf.Positional]
        """Run folder or model file."""
        images: Annotated[list[str], tyro.conf.Positional]
        """Image files, folders (searched for images), or - for a list of paths (or one image) on stdin."""
        format: Literal["table", "csv", "jsonl"] = "table"
        top_k: int = 3
        """How many classes to show."""
        batch_size: int = 16

    given = parse(Predict, "predict", words)
    from vitral.predict import find_images, load, predict_stream

    predictor = load(given.model)
    print_row = Rows(given.format, min(given.top_k, len(predictor.labels)))
    failed = total = 0
    batch = 1 if given.images == ["-"] else given.batch_size  # a pipe wants each answer at once
    for row in predict_stream(predictor, find_images(given.images), given.top_k, batch):
        total += 1
        failed += isinstance(row, tuple)
        print_row(row)
    if failed:
        print(f"vitral: {failed} of {total} images could not be read", file=sys.stderr)
    return 1 if failed else 0


class Rows:
    """Predictions on stdout, one line each: an aligned table, CSV with a header, or JSON lines."""

    def __init__(self, how: str, top_k: int) -> None:
        self.how = how
        self.top_k = max(1, top_k)
        self.writer = csv.writer(sys.stdout, lineterminator="\n")
        if how == "csv":
            ranked = [f"{what}_{i}" for i in range(2, self.top_k + 1) for what in ("label", "probability")]
            self.writer.writerow(["image", "label", "probability", *ranked, "error"])

    def __call__(self, row: "Prediction | tuple[str, VitralError]") -> None:
        if self.how == "jsonl":
            plain = {"image": row[0], "error": str(row[1])} if isinstance(row, tuple) else {
                "image": row.name, "label": row.label, "probability": row.probability,
                "top": [{"label": label, "probability": p} for label, p in row.top],
            }  # fmt: skip
            print(json.dumps(plain))
        elif self.how == "csv":
            if isinstance(row, tuple):
                self.writer.writerow([row[0], *[""] * (2 * self.top_k), str(row[1])])
            else:
                self.writer.writerow(
                    [row.name, *[x for label, p in row.top[: self.top_k] for x in (label, f"{p:.6f}")], ""]
                )
        elif isinstance(row, tuple):
            print(f"{row[0]}  error: {row[1]}")
        else:
            print(f"{row.name}  " + "  ".join(f"{label} {p:.1%}" for label, p in row.top[: self.top_k]))
        sys.stdout.flush()


def explain(words: list[str]) -> int:
    import tyro

    @dataclass
    class Explain:
        """Draw what the class token attends to, over the image in its own shape.

        Example: vitral explain runs/photos cat.jpg --layer 5 --head 0 -o cat.png
        Example: vitral explain runs/photos cat.jpg --all -o heads.png --npz cat.npz
        """

        model: Annotated[Path, tyro.conf.Positional]
        """Run folder or model file."""
        image: Annotated[Path, tyro.conf.Positional]
        out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("attention.png")
        """Picture to write: .png, .jpg or .webp."""
        method: Literal["attention", "rollout"] = "attention"
        layer: int | Literal["mean"] = -1
        """Layer from 0, or from the end if negative, or mean for all."""
        head: int | None = None
        """Head from 0; default the mean of all."""
        query: tuple[int, int] | Literal["cls", "mean"] | None = None
        """Who looks: cls (the class token), mean (the average patch) or the patch at ROW COLUMN; default: what the model's head reads."""
        all: bool = False
        """The whole grid of layers and heads in one picture."""
        npz: Path | None = None
        """Also write the raw arrays here."""

    given = parse(Explain, "explain", words)
    from vitral.explain.explain import look
    from vitral.explain.figure import save_picture
    from vitral.predict import load

    attention = look(load(given.model), given.image)
    if given.all:
        query = given.query or attention.query
        reader = {"cls": "class token", "mean": "average patch"}.get(str(query), f"patch at {query}")
        title = f"{given.image.name}: {attention.label} {attention.probability:.1%}\nwhat the {reader} reads, by layer and head"
        save_picture(attention.figure(title, given.query), given.out)
    else:
        attention.explain(given.method, given.layer, given.head, given.query).save(given.out)
    if given.npz is not None:
        attention.save(given.npz)
    print(
        f"{attention.label} {attention.probability:.1%}; wrote {given.out}"
        + (f" and {given.npz}" if given.npz else ""),
        file=sys.stderr,
    )
    return 0


def models(words: list[str]) -> int:

    @dataclass
    class Models:
        """List the models by name, with their size.

        Example: vitral models --json
        """

        json: bool = False
        """Print JSON on stdout."""

    given = parse(Models, "models", words)
    from vitral.models.zoo import MODELS

    if given.json:
        print(json.dumps({name: config.arguments() for name, config in MODELS.items()}))
        return 0
    for name, c in MODELS.items():
        print(
            f"{name:30} width {c.dim:5}  layers {c.depth:3}  heads {c.num_heads:3}  patch {c.patch_size:3}  {c.image_size[0]} px"
        )
    return 0


def report(words: list[str]) -> int:
    import tyro

    @dataclass
    class Report:
        """Write a finished run's report.html again.

        Example: vitral report runs/photos
        """

        run: Annotated[Path, tyro.conf.Positional]

    given = parse(Report, "report", words)
    from vitral.report.run import report_run

    print(report_run(given.run), file=sys.stderr)
    return 0
