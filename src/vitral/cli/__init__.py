"""The command line: thin commands over the public API.

Machine-readable output goes to stdout, everything for people to stderr. A `VitralError` is one message and exit code 2. Torch is imported only by the
commands that compute, so that help answers at once.
"""

import importlib
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vitral.errors import VitralError, installed_whole


@dataclass(frozen=True)
class Command:
    """A command: its function, which takes the dataclass of its options and its words, and its line in the overview."""

    module: str
    function: str
    about: str
    example: str

    def load(self) -> tuple[type, Callable[[Any, list[str]], int]]:
        """The dataclass and the function."""
        run = getattr(importlib.import_module(f"vitral.cli.{self.module}"), self.function)
        return typing.get_type_hints(run)["given"], run


COMMANDS = {
    "doctor": Command("doctor", "doctor", "find what is wrong with images and labels", "doctor photos/"),
    "plan": Command("plan", "plan", "choose what to train in your time, and say why", "plan photos/ --hours 2"),
    "train": Command("train", "train", "train a ViT on a folder, table or built-in data set", "train photos/ --time 10m --out runs/photos"),
    "pretrain": Command("train", "pretrain", "learn from images without labels, to start from", "pretrain photos/ --objective mae"),
    "memory": Command("trial", "memory", "memory and seconds that a run would take here", "memory photos/ --batch-size 256"),
    "lr-find": Command("trial", "lr_find", "suggest a learning rate by a range test", "lr-find photos/ --plot lr.html"),
    "coach": Command("coach", "coach", "say what goes wrong in a run, and what to try", "coach runs/photos"),
    "evaluate": Command("evaluate", "evaluate", "score a run or model on data", "evaluate runs/photos photos/ --json"),
    "probe": Command("probe", "probe", "measure how useful a frozen model's features are", "probe runs/photos-pretrained photos/"),
    "sweep": Command("sweep", "sweep", "train many runs and compare them", "sweep photos/ --seeds 0 1 2 --fractions 0.1 1"),
    "predict": Command("predict", "predict", "label images, folders or a list on stdin", "predict runs/photos new/*.jpg --format csv"),
    "explain": Command("explain", "explain", "draw what in an image the answer rests on", "explain runs/photos cat.jpg -o cat.png"),
    "inspect": Command("inspect", "inspect", "show what is inside a model: filters, heads, layers", "inspect runs/photos photos/"),
    "view": Command("view", "view", "look into a model in the browser", "view runs/photos cat.jpg"),
    "serve": Command("serve", "serve", "answer over HTTP", "serve runs/photos"),
    "models": Command("models", "models", "list the models that can be trained", "models"),
    "convert": Command("models", "convert", "convert to and from timm, Hugging Face, Google's .npz", "convert runs/photos photos-hf --to hf"),
    "export": Command("export", "export", "write a model for another engine", "export runs/photos -o photos.onnx"),
    "optimize": Command("bench", "optimize", "find the fastest engine here for a model", "optimize runs/photos photos/ -o fast/"),
    "bench": Command("bench", "bench", "measure speed, latency and memory of a model", "bench runs/photos --engine torch onnx"),
    "data convert": Command("data", "convert", "boxes and masks into another format", "data convert street/ out --to yolo"),
    "data scenes": Command("data", "scenes", "make scenes with exact masks to try things on", "data scenes scenes/"),
    "data pack": Command("data", "pack", "images as tar shards that are read in any order", "data pack photos/ shards"),
    "data index": Command("data", "index", "the index of tar shards, here or behind a URL", "data index shards/"),
    "report": Command("train", "report", "write a finished run's page again", "report runs/photos"),
    "completion": Command("completion", "completion", "make the shell complete all this at TAB", "completion bash"),
}  # fmt: skip


def overview() -> str:
    """What `vitral --help` prints."""
    import vitral

    rows = (f"  {name:12} {each.about:51} vitral {each.example}" for name, each in COMMANDS.items())
    return "\n".join([
        f"vitral {vitral.__version__}: Vision Transformers from a folder of images to a trained model, its predictions and a picture of what it",
        "looked at",
        "\nusage: vitral COMMAND ...\n",
        *rows,
        "\nBuilt-in data: digits (needs nothing), fashion-mnist, elpv.",
        "`vitral COMMAND -h` shows what most people use of a command, `vitral COMMAND --help all` everything.",
    ])  # fmt: skip


def with_folder(words: list[str]) -> list[str]:
    """The words, with --images FOLDER as --images-folder FOLDER; with a number it says how many, where a command has that."""
    spread = [word for each in words for word in (each.split("=", 1) if each.startswith("--images=") else [each])]
    return [
        "--images-folder"
        if word == "--images" and i + 1 < len(spread) and not spread[i + 1].lstrip("-").isdigit()
        else word
        for i, word in enumerate(spread)
    ]


def main(arguments: list[str] | None = None) -> None:
    """The entry point; exits with 0, 1 (some images failed), 2 (an error the user can mend) or 130 (interrupted)."""
    try:
        sys.exit(_run(with_folder(list(sys.argv[1:] if arguments is None else arguments))))
    except VitralError as error:
        print(f"vitral: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("vitral: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def _run(words: list[str]) -> int:
    if words[:1] == ["help"]:  # vitral help train is vitral train --help
        words = _named(words[1:])
        words = [words[0], "--help", *words[1:]] if words else []
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    name, *rest = _named(words)
    if name in ("-V", "--version"):
        import vitral

        print(vitral.__version__)
        return 0
    if name not in COMMANDS:
        import difflib

        if inner := [each for each in COMMANDS if each.startswith(f"{name} ")]:
            raise VitralError(f"vitral {name} is one of: {', '.join(f'vitral {each}' for each in inner)}")

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        raise VitralError(
            f"{name!r} is not a command" + (f"; did you mean {near[0]!r}?" if near else "; see vitral --help")
        )
    kind, run = COMMANDS[name].load()
    if asked_for_help(rest):
        from vitral.cli.help import help_page

        print(help_page(kind, name, rest))
        return 0
    from vitral.cli.parse import parse

    with installed_whole(f"vitral {name}"):
        return run(parse(kind, name, rest), rest)


def _named(words: list[str]) -> list[str]:
    """The words, the first two as one where these name a command: data convert."""
    return [" ".join(words[:2]), *words[2:]] if " ".join(words[:2]) in COMMANDS else words


def asked_for_help(words: list[str]) -> bool:
    """Whether -h or --help is among the words."""
    return any(word in ("-h", "--help") or word.startswith("--help=") for word in words)
