"""The command that prints what makes a shell complete vitral's commands, flags, values that can be counted, and files: completion.

The script holds all the words, so that TAB asks nobody. It is made from `options_of`, and made again whenever the shell starts.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from vitral.cli.help import ORDER
from vitral.cli.options import Option, argument, options_of
from vitral.cli.parse import spellings
from vitral.data.given import NAMES

DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass
class Completion:
    """Print what makes the shell complete vitral's commands, flags and values at TAB.

    zsh: put eval "$(vitral completion zsh)" after compinit in ~/.zshrc. fish: vitral completion fish > ~/.config/fish/completions/vitral.fish

    Example: echo 'eval "$(vitral completion bash)"' >> ~/.bashrc

    Example: vitral completion fish > ~/.config/fish/completions/vitral.fish
    """

    shell: Literal["bash", "zsh", "fish"] = argument()
    """Whose script: bash, zsh or fish."""


def completion(given: Completion, words: list[str]) -> int:
    print({"bash": bash, "zsh": zsh, "fish": fish}[given.shell](told()))
    return 0


@dataclass(frozen=True)
class Flag:
    """A flag as a shell sees it."""

    spelled: str
    values: tuple[str, ...]
    """None of them: any text, or a file."""
    takes: Literal["none", "one", "many"]
    sentence: str


@dataclass(frozen=True)
class Told:
    """What a command can be told, as a shell sees it."""

    about: str
    flags: list[Flag]
    words: tuple[str, ...]
    """What may stand without a flag, beside files."""


def told() -> dict[str, Told]:
    """Every command."""
    from vitral.cli import COMMANDS

    found: dict[str, Told] = {}
    for name, command in COMMANDS.items():
        options = options_of(command.load()[0])
        flags = [flag for option in options if not option.positional for flag in _flags(option)]
        topics = ("all", *map(str.lower, ORDER[1:]))
        flags.append(Flag("--help", topics, "one", "What most people use; all: everything."))
        loose = tuple(value for option in options if option.positional for value in values(option))
        first, _, second = name.partition(" ")
        if second:  # data convert: convert stands beside data's files, and the flags of all such commands are data's
            before = found.get(first, Told(command.about, [], ()))
            known = {flag.spelled for flag in before.flags}
            flags = [*before.flags, *(flag for flag in flags if flag.spelled not in known)]
            loose = (*before.words, second, *loose)
        found[first] = Told(command.about, flags, loose)
    found["help"] = Told("show a command's options", [], tuple(COMMANDS))
    return found


def _flags(option: Option) -> Iterable[Flag]:
    takes: Literal["none", "one", "many"] = "none" if option.switch else "many" if option.many else "one"
    for spelled in spellings(option):
        yield Flag(
            spelled, () if option.switch else values(option), takes, option.sentence.split(". ")[0].removesuffix(".")
        )


def values(option: Option) -> tuple[str, ...]:
    """The values that can be counted."""
    from vitral.models.sizes import SIZES

    named = option.kinds == (str,) and option.name in ("model", "models", "name") and option.section.__name__ != "View"
    if named or (option.many and option.name == "models"):
        return tuple(SIZES)
    own = {"data": NAMES, "device": DEVICES, "neighbours": NAMES}
    return option.choices or own.get(option.name, ())


def _cases(commands: dict[str, Told], what: Callable[[str, Told], Iterable[tuple[str, Iterable[str]]]]) -> str:
    """The branches of a shell's case: pattern and words."""
    rows: dict[str, list[str]] = {}
    for name, each in commands.items():
        for pattern, words in what(name, each):
            if joined := " ".join(words):
                rows.setdefault(joined, []).append(f'"{pattern}"')
    return "\n".join(f"    {'|'.join(patterns)}) words='{words}' ;;" for words, patterns in rows.items())


def _flag_cases(commands: dict[str, Told]) -> str:
    return _cases(commands, lambda name, each: [(name, (flag.spelled for flag in each.flags))])


def _value_cases(commands: dict[str, Told], *takes: str) -> str:
    return _cases(
        commands, lambda name, each: [(f"{name} {f.spelled}", f.values) for f in each.flags if f.takes in takes]
    )


def _loose_cases(commands: dict[str, Told]) -> str:
    return _cases(commands, lambda name, each: [(name, each.words)])


# `flag` is the flag that the word belongs to, and `after` how many words stand between them.
BODY = """\
  local words="" flag="" after=0 i
  if (( place == 1 )); then
    words='{commands} --help --version'
  elif [[ $word == -* ]]; then
    case "$command" in
{flags}
    esac
  else
    for (( i = place - 1; i > 1; i-- )); do
      if [[ ${{line[i + base]}} == -* ]]; then flag=${{line[i + base]}}; after=$(( place - 1 - i )); break; fi
    done
    if (( after == 0 )); then
      case "$command $flag" in
{one}
      esac
    fi
    case "$command $flag" in
{many}
    esac
    if [[ -z $words && ( -z $flag || $after -gt 0 ) ]]; then
      case "$command" in
{loose}
      esac
    fi
  fi"""


def _body(commands: dict[str, Told]) -> str:
    return BODY.format(
        commands=" ".join(commands), flags=_flag_cases(commands), one=_value_cases(commands, "one"), many=_value_cases(commands, "many"),
        loose=_loose_cases(commands),
    )  # fmt: skip


def bash(commands: dict[str, Told]) -> str:
    """For bash 3.2 and newer, which splits --flag=value at the sign."""
    return f"""\
_vitral() {{
  local line=() base=0 place=0 word command each
  for (( each = 0; each <= COMP_CWORD; each++ )); do
    if [[ ${{COMP_WORDS[each]}} != "=" ]]; then line+=("${{COMP_WORDS[each]}}"); fi
  done
  if [[ ${{COMP_WORDS[COMP_CWORD]}} == "=" ]]; then line+=(""); fi
  place=$(( ${{#line[@]}} - 1 )); word=${{line[place]}}; command=${{line[1]}}
{_body(commands)}
  COMPREPLY=( $(compgen -W "$words" -- "$word") )
  if [[ $word != -* ]] && (( place > 1 )) && [[ -z $words || ${{#COMPREPLY[@]}} -eq 0 || -z $flag ]]; then
    local IFS=$'\\n'
    COMPREPLY+=( $(compgen -f -- "$word") )
  fi
}}
complete -o filenames -F _vitral vitral"""


def zsh(commands: dict[str, Told]) -> str:
    return f"""\
#compdef vitral
_vitral() {{
  setopt localoptions noshwordsplit
  local -a line
  local base=1 place=$(( CURRENT - 1 )) word=$PREFIX command=$words[2]
  line=("${{words[@]}}")
{_body(commands).replace('local words=""', 'local -a found; local words=""').replace("${line[i + base]}", "${line[$((i + base))]}")}
  found=(${{=words}})
  if [[ $PREFIX == --*=* ]]; then compset -P '*='; fi
  (( $#found )) && compadd -a found
  if [[ $word != -* ]] && (( place > 1 )) && [[ -z $words || -z $flag ]]; then _files; fi
}}
compdef _vitral vitral"""


def fish(commands: dict[str, Told]) -> str:
    lines = ["complete -c vitral -e"]
    for name, each in commands.items():
        lines.append(f"complete -c vitral -f -n __fish_use_subcommand -a {name} -d {_quoted(each.about)}")
        seen = f"-n '__fish_seen_subcommand_from {name}'"
        if each.words:
            lines.append(f"complete -c vitral {seen} -a {_quoted(' '.join(each.words))}")
        for flag in each.flags:
            spelled = f"-l {flag.spelled[2:]}" if flag.spelled.startswith("--") else f"-s {flag.spelled[1:]}"
            values = (
                "" if flag.takes == "none" else f" -x -a {_quoted(' '.join(flag.values))}" if flag.values else " -r"
            )
            lines.append(f"complete -c vitral {seen} {spelled}{values} -d {_quoted(flag.sentence)}")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """As fish reads it: only the sign itself and the backslash are special between single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
