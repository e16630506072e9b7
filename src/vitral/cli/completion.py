"""The command that prints a shell's completion script: completion. It completes commands, flags, values and files.

The script holds all words, so that TAB starts no process. It is made from `options_of`, anew whenever the shell starts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vitral.cli.help import ORDER
from vitral.cli.options import Option, argument, options_of
from vitral.cli.parse import spellings
from vitral.data.given import NAMES

DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass
class Completion:
    """Print the script that makes a shell complete vitral's commands, flags and values at TAB.

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
    """What a shell can complete of a command."""

    about: str
    flags: list[Flag]
    words: tuple[str, ...]
    """Words without a flag, beside files."""


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
    """The values of an option that has a fixed list of them."""
    from vitral.models.sizes import SIZES

    named = option.kinds == (str,) and option.name in ("model", "models", "name") and option.section.__name__ != "View"
    if named or (option.many and option.name == "models"):
        return tuple(SIZES)
    own = {"data": NAMES, "device": DEVICES, "neighbours": NAMES}
    return option.choices or own.get(option.name, ())


def _cases(rows: Iterable[tuple[str, Iterable[str]]]) -> str:
    """The branches of a shell's case, from patterns and their words."""
    patterns: dict[str, list[str]] = {}
    for pattern, words in rows:
        if joined := " ".join(words):
            patterns.setdefault(joined, []).append(f'"{pattern}"')
    return "\n".join(f"    {'|'.join(each)}) words='{words}' ;;" for words, each in patterns.items())


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
    valued = [(f"{name} {flag.spelled}", flag) for name, each in commands.items() for flag in each.flags]
    return BODY.format(
        commands=" ".join(commands),
        flags=_cases((name, (flag.spelled for flag in each.flags)) for name, each in commands.items()),
        one=_cases((pattern, flag.values) for pattern, flag in valued if flag.takes == "one"),
        many=_cases((pattern, flag.values) for pattern, flag in valued if flag.takes == "many"),
        loose=_cases((name, each.words) for name, each in commands.items()),
    )


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
