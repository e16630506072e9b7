"""The command line: thin commands over the public API.

Machine-readable output goes to stdout, everything for people to stderr. A `VitralError` is one message and exit code 2. Torch is imported only by the
commands that compute, so that help answers at once.
"""

import sys
from collections.abc import Callable

from vitral.cli.coach import coach
from vitral.cli.doctor import doctor
from vitral.cli.explain import explain
from vitral.cli.inspect import inspect
from vitral.cli.models import convert, models
from vitral.cli.plan import plan
from vitral.cli.probe import probe
from vitral.cli.sweep import sweep
from vitral.cli.train import pretrain, report, train
from vitral.cli.trial import lr_find, memory
from vitral.cli.use import evaluate, predict
from vitral.cli.view import view
from vitral.errors import VitralError

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "doctor": doctor,
    "plan": plan,
    "train": train,
    "pretrain": pretrain,
    "memory": memory,
    "lr-find": lr_find,
    "coach": coach,
    "evaluate": evaluate,
    "probe": probe,
    "sweep": sweep,
    "predict": predict,
    "explain": explain,
    "inspect": inspect,
    "view": view,
    "models": models,
    "convert": convert,
    "report": report,
}
OVERVIEW = """\
vitral {version}: Vision Transformers from a folder of images to a trained model, its predictions and a picture of what it looked at

usage: vitral COMMAND ...

  doctor     find what is wrong with images and labels               vitral doctor photos/
  plan       say what to train in your time, and why                 vitral plan photos/ --hours 2
  train      train a ViT on a folder, table or built-in data set     vitral train photos/ --time 10m --out runs/photos
  pretrain   learn from images without labels, to start from         vitral pretrain photos/ --objective mae
  memory     what a run would take here: memory and seconds          vitral memory photos/ --batch-size 256
  lr-find    suggest a learning rate by a range test                 vitral lr-find photos/ --plot lr.html
  coach      what seems to go wrong in a run, and what to try        vitral coach runs/photos
  evaluate   score a run or model on data                            vitral evaluate runs/photos photos/ --json
  probe      how useful a frozen model's features are                vitral probe runs/photos-pretrained photos/
  sweep      train many runs and compare them                        vitral sweep photos/ --seeds 0 1 2 --fractions 0.1 1
  predict    label images, folders or a list on stdin                vitral predict runs/photos new/*.jpg --format csv
  explain    draw what in an image the answer comes from              vitral explain runs/photos cat.jpg -o cat.png
  inspect    show what is inside a model: filters, heads, layers     vitral inspect runs/photos photos/
  view       look into a model in the browser                        vitral view runs/photos cat.jpg
  models     list the models that can be trained                     vitral models
  convert    to and from timm, Hugging Face and Google's .npz        vitral convert runs/photos photos-hf --to hf
  report     write a finished run's page again                       vitral report runs/photos

Built-in data: digits (needs nothing), fashion-mnist, elpv. `vitral COMMAND --help` shows a command's options.
"""


def main(arguments: list[str] | None = None) -> None:
    """The entry point; exits with 0, 1 (some images failed), 2 (an error the user can mend) or 130 (interrupted)."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            import vitral

            print(OVERVIEW.format(version=vitral.__version__))
            sys.exit(0)
        if words[0] in ("-V", "--version"):
            import vitral

            print(vitral.__version__)
            sys.exit(0)
        if words[0] not in COMMANDS:
            import difflib

            near = difflib.get_close_matches(words[0], COMMANDS, n=1)
            raise VitralError(
                f"{words[0]!r} is not a command" + (f"; did you mean {near[0]!r}?" if near else "; see vitral --help")
            )
        sys.exit(COMMANDS[words[0]](words[1:]))
    except VitralError as error:
        print(f"vitral: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("vitral: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
