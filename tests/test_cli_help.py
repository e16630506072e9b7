"""Help pages, what a wrong word is answered, and shell completion."""

import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image

from vitral.cli import COMMANDS, main
from vitral.cli.completion import values
from vitral.cli.help import COMMON, everything, screen
from vitral.cli.options import argument, options_of
from vitral.cli.parse import parse, spellings
from vitral.errors import VitralError
from vitral.models.heads.options import HEADS
from vitral.objectives.options import OBJECTIVES
from vitral.training.config import SECTIONS, Recipe
from vitral.training.options import ModelArguments

KINDS = {name: command.load()[0] for name, command in COMMANDS.items()}


def run(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_screen_is_a_screen(command):
    """At most 40 lines in 80 columns; arguments by their names; no more than two examples; nothing of Python's."""
    page = screen(KINDS[command], command, 80)
    lines = page.splitlines()
    assert len(lines) <= 40
    assert all(len(line) <= 80 for line in lines)
    assert "None" not in page
    assert lines[0].startswith(f"usage: vitral {command}")
    assert f"Example: vitral {command}" in page or command == "completion"
    for option in options_of(KINDS[command]):
        if option.positional:
            assert option.metavar in lines[0]
            assert re.search(rf"^  {re.escape(option.metavar)}  +\w", page, re.M), option.name


@pytest.mark.parametrize("command", COMMANDS)
def test_all_pages_hold_every_option_once_with_a_sentence(command):
    page, kind = everything(KINDS[command], command, 100), KINDS[command]
    assert "None" not in page + screen(kind, command)
    assert "MISSING" not in page
    for option in options_of(kind):
        if not option.positional:
            assert len(re.findall(rf"^  (?:-\w, )?{option.flag}(?![\w-])", page, re.M)) == 1, option.flag
        assert option.sentence.endswith("."), option.flag
        assert len(option.sentence) > 12, option.flag
        assert option.sentence[0].isupper() or option.sentence[0] == "-", option.flag
        for choice in option.choices:
            assert re.search(rf"\b{re.escape(choice)}\b", page), (option.flag, choice)
        if option.value is not None and option.value is not dataclasses.MISSING and not isinstance(option.value, bool):
            assert option.default or option.value == (), option.flag
    for name in COMMON.get(command, ()):
        assert any(option.name == name for option in options_of(kind)), name


def test_a_new_field_needs_no_list():
    """What a section gains is on the page, under a heading, without anything else being written down."""
    page = everything(KINDS["train"], "train")
    said = {option.path[1:] for option in options_of(KINDS["train"]) if option.path[0] == "settings"}
    kinds = {name: [type(getattr(Recipe(), name))] for name in SECTIONS}
    kinds |= {"model": [ModelArguments], "objective": [*OBJECTIVES.values()], "head": [*HEADS.values()]}
    fields = {
        (name, each.name)
        for name in kinds
        for kind in kinds[name]
        for each in dataclasses.fields(kind)
        if each.metadata.get("flag", each.name)
    }
    assert said == fields | {("objective", "name"), ("head", "name")}
    assert "--norm-eps" not in page  # recipe files alone say what no command line offers
    headings = [line for line in page.splitlines() if re.fullmatch(r"[A-Z][\w ]+", line)]
    assert headings == [
        "This command", "Model", "Images", "Augmentation", "Budget", "Optimiser", "Transfer", "Objective", "Machine", "Output",
    ]  # fmt: skip


@pytest.mark.parametrize("words", [["train", "-h"], ["train", "--help"], ["help", "train"], ["train", "photos", "-h"]])
def test_the_ways_to_ask_for_the_screen(capsys, words):
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    assert "usage: vitral train DATA [options]" in out
    assert "--epochs" in out
    assert "--warmup-lr" not in out
    assert "vitral train --help all" in out


def test_parts_of_everything(capsys):
    code, out, _ = run(capsys, "train", "--help", "all")
    assert code == 0
    assert "--warmup-lr" in out
    assert run(capsys, "help", "train", "all")[1] == run(capsys, "train", "--help=all")[1] == out
    _, part, _ = run(capsys, "train", "--help", "augmentation")
    assert "--cutmix" in part
    assert "--epochs" not in part
    _, one, _ = run(capsys, "train", "--help", "warmup-lr")
    assert one.split()[0] == "--warmup-lr"
    code, _, err = run(capsys, "train", "--help", "optimizor")
    assert code == 2
    assert "did you mean optimi" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("train digits --epohcs 3", "--epohcs: vitral train has no such option; did you mean --epochs?"),
        ("train digits --leraning_rate 3", "--leraning-rate: vitral train has no such option"),
        ("train digits --epochs three", "--epochs three: give a number"),
        ("train digits --steps 1.5", "--steps 1.5: give a whole number"),
        ("train digits --image-size x", "--image-size x: give 2 whole numbers"),
        ("train digits --lr", "--lr: needs a value, a number"),
        ("train digits --optimizer adam", "did you mean adamw?"),
        ("train digits --keep=first", "--keep first: give one of best, last"),
        ("predict", "MODEL is missing"),
        ("predict a b --format xml", "--format xml: give one of table, csv, jsonl"),
        ("predict a b -x", "-x: vitral predict has no such option"),
        ("evaluate run data more", "more: is one word too many; vitral evaluate takes MODEL DATA and options"),
        ("train a --seed 3 b", "b: is one word too many"),
        ("sweep a --seed 1 2", "a run for each is --seeds 1 2"),
        ("explain m i --compare rollout rolout", "did you mean rollout?"),
    ],
)
def test_a_wrong_word_is_named_with_what_is_meant(capsys, words, says):
    code, out, err = run(capsys, *words.split())
    assert (code, out) == (2, "")
    assert says in err
    assert f"see vitral {words.split()[0]} -h" in err
    assert len(err.splitlines()) <= 3
    assert "None" not in err


@dataclasses.dataclass
class Inner:
    """A section; default: as it is."""

    rate: float | None = None
    """Rate of it."""
    deep: bool | None = None
    """Whether deep."""
    kind: Literal["a", "b"] = "a"
    """Kind: a or b; default: a, the first."""
    secret: int = dataclasses.field(default=7, metadata={"flag": ""})


@dataclasses.dataclass
class Outer:
    """What it does."""

    place: Path = argument()
    """Where."""
    names: tuple[str, ...] = ()
    """Names of it."""
    image_size: tuple[int, int] | None = None
    """Size of it."""
    loud: bool = True
    """Say more."""
    inner: Inner = dataclasses.field(default_factory=lambda: Inner(rate=2.0))


def test_words_become_values_in_their_places():
    given = parse(
        Outer, "try", ["there", "--names", "x", "y", "--image_size", "7", "--no-loud", "--no-deep", "--kind", "b"]
    )
    assert given == Outer(Path("there"), ("x", "y"), (7, 7), False, Inner(2.0, False, "b"))
    assert parse(Outer, "try", ["there", "--deep", "--rate", "-1.5", "--image-size", "7", "8"]) == Outer(
        Path("there"), image_size=(7, 8), inner=Inner(-1.5, True)
    )
    assert parse(Outer, "try", ["there", "--deep", "False"]).inner.deep is False
    with pytest.raises(VitralError, match="PLACE is missing: Where"):
        parse(Outer, "try", ["--loud"])


def test_what_an_option_says_of_itself():
    said = {option.name: option for option in options_of(Outer)}
    assert "secret" not in said
    assert [*spellings(said["loud"])] == ["--loud", "--no-loud"]
    assert (said["kind"].sentence, said["kind"].default) == ("Kind: a or b.", "a, the first")
    assert said["deep"].default == "as it is"
    assert said["rate"].default == "2"
    assert said["names"].default == ""
    assert said["names"].metavar == "TEXT ..."


def test_a_recipe_lies_under_the_flags(tmp_path):
    (tmp_path / "r.toml").write_text('[optim]\nlr = 0.5\noptimizer = "sgd"\n[model]\nnorm_eps = 0.25\n')
    given = parse(KINDS["train"], "train", ["digits", "--recipe", str(tmp_path / "r.toml"), "--lr", "0.25"])
    assert (given.settings.optim.lr, given.settings.optim.optimizer) == (0.25, "sgd")
    assert given.settings.model.get("norm_eps") == 0.25  # which no flag sets
    assert given.said == {"recipe", "lr"}
    assert given.settings.said == {"optim.lr", "optim.optimizer", "model.norm_eps"}
    assert parse(KINDS["pretrain"], "pretrain", ["digits"]).settings.objective.name == "mae"


LIGHT = "heavy = {'torch', 'numpy', 'sklearn', 'scipy', 'PIL', 'rich', 'tyro'} & set(sys.modules)"


@pytest.mark.parametrize(
    "words", [["--help"], *([name, "-h"] for name in COMMANDS), ["train", "--help", "all"]], ids=" ".join
)
def test_help_loads_nothing_heavy(words):
    code = f"import sys\nfrom vitral.cli import main\ntry: main({words!r})\nexcept SystemExit: {LIGHT}; sys.exit(repr(heavy) if heavy else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_completion_loads_no_torch(capsys):
    code = "import sys\nfrom vitral.cli import main\ntry: main(['completion', 'bash'])\nexcept SystemExit: sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
    assert run(capsys, "completion", "powershell")[0] == 2


DRIVE = r"""
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=()
function=$(complete -p vitral | sed 's/.* -F \([^ ]*\) .*/\1/')  # what bash runs at TAB
"$function" vitral "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["tra"], {"train"}),
        (["help", "pro"], {"probe"}),
        (["train", "--warmup-l"], {"--warmup-lr"}),
        (["train", "dig"], {"digits"}),
        (["train", "--no-zero"], {"--no-zero-head"}),
        (["predict", "--top"], {"--top-k"}),
        (
            ["pretrain", "digits", "--objective", ""],
            {"classify", "segment", "detect", "mae", "beit", "patch", "dino", "tokenizer"},
        ),
        (["train", "--objective", "=", "m"], {"mae"}),
        (["train", "--device", "=", ""], {"auto", "cpu", "cuda", "mps"}),
        (["train", "--model", "resnet1"], {"resnet18", "resnet101"}),
        (["models", "resnet18"], {"resnet18"}),
        (["sweep", "digits", "--models", "resnet18", "resnet3"], {"resnet34"}),
        (["evaluate", "a", "b", "--explanations", "rollout", "rel"], {"relevance"}),
        (["train", "--seed", "1", "dig"], {"digits"}),
        (["train", "--recipe", "here/"], {"here/my recipe.toml", "here/x.toml"}),
        (["predict", "here/x"], {"here/x.toml"}),
        (["train", "--help", "aug"], {"augmentation"}),
        (["train", "--epochs", "1", "--tim"], {"--time"}),
        (["train", "digits", "--position", ""], {"learned", "learned2d", "sincos2d", "none", "rotary"}),
        (["train", "--pooling", "c"], {"cls", "cls_mean"}),
        (["plan", "--activation", ""], {"gelu", "relu"}),
        (["pretrain", "--resize", ""], {"crop", "squash", "pad"}),
        (["convert", "a", "b", "--resize", "t"], {"timm", "torchvision"}),
        (["sweep", "--interpolation", "bi"], {"bicubic", "bilinear"}),
        (["models", "--family", "swin"], {"swin", "swinv2"}),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_bash_completes(line, expected, script, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "x.toml").touch()
    (tmp_path / "here" / "my recipe.toml").touch()
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, "--norc", "-c", DRIVE, "bash", script, "vitral", *line], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stderr == ""
    assert set(done.stdout.splitlines()) == expected


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "vitral.bash"
    done = subprocess.run([sys.executable, "-m", "vitral", "completion", "bash"], capture_output=True, check=True)
    path.write_bytes(done.stdout)
    return path


def test_every_value_that_can_be_counted_is_completed():
    """No option tells in its sentence alone which of a few words it takes."""
    for name, kind in KINDS.items():
        for option in options_of(kind):
            if option.kinds == (str,) and re.search(r": \w+( \([^)]*\))?(, \w+)* or \w+", option.sentence):
                assert values(option), (name, option.flag)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_every_flag_in_what_they_can_read(capsys, shell, tmp_path):
    code, out, _ = run(capsys, "completion", shell)
    assert code == 0
    for name in COMMANDS:
        assert re.search(rf"\b{name}\b", out)
    flag = "--warmup-lr" if shell == "zsh" else "-l warmup-lr"
    assert flag in out
    if shutil.which(shell):  # where it is there, it reads it
        (tmp_path / "script").write_text(out)
        done = subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_run_starts_without_what_it_does_not_need(tmp_path):
    """Nothing that torch's compiler brings along is loaded from the command to the report, and few images need no trial in another process."""
    for label in ("dark", "bright"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(8):
            image = Image.new("RGB", (20, 20), (200 * (label == "bright") + i,) * 3)
            image.save(tmp_path / "data" / label / f"{i}.png")
    code = f"""
import resource, sys
from vitral.cli import main
from vitral.guidance.plan.plan import make_plan
from vitral.training.config import Recipe
from vitral.training.options import ModelArguments
from vitral.training.display import Display
plan = make_plan({str(tmp_path / "data")!r}, Recipe(), Display(), brief=True)
assert plan.estimate.glanced
assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime == 0
try:
    main(["train", {str(tmp_path / "data")!r}, "--steps", "2", "--out", {str(tmp_path / "run")!r}])
except SystemExit as done:
    heavy = {{"torch._dynamo", "torch._inductor", "sympy", "torch.distributed.fsdp", "sklearn", "scipy", "onnx"}} & set(sys.modules)
    sys.exit(repr(heavy) if heavy else done.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "loading torch\n" in done.stderr
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "RECIPE"], "a.toml: is a recipe, not data; to train by it: vitral train DATA --recipe"),
        (["evaluate", "model", "RECIPE"], "a.toml: is a recipe, not data"),
        (["train", "digits", "RECIPE"], "a.toml: is a recipe; give it as --recipe"),
        (["pretrain", "digtis"], "no such folder or file, and it is no built-in data set (digits, fashion-mnist, elpv); did you mean digits?"),
        (["train", "FOLDER/photo"], "did you mean FOLDER/photos?"),
        (["plan", "FOLDER/nothing-like-it"], "check the path"),
    ],
)  # fmt: skip
def test_what_is_no_data_is_said_before_anything_is_loaded(tmp_path, words, says):
    (tmp_path / "photos").mkdir()
    (tmp_path / "a.toml").write_text("[train]\nepochs = 1\n")
    places = {"RECIPE": str(tmp_path / "a.toml"), "FOLDER": str(tmp_path)}
    for name, place in places.items():
        words, says = [word.replace(name, place) for word in words], says.replace(name, place)
    code = f"""
import sys
from vitral.cli import main
try:
    main({words!r})
finally:
    assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
