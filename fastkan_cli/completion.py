"""Shell completion: scripts for bash, zsh and fish, generated from an argparse parser with subcommands."""

import argparse
import shlex

SHELLS = ("bash", "zsh", "fish")


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script that completes commands, options, and the values of options with choices; other words are files."""
    if shell == "fish":
        return _fish(parser)
    return ("autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else "") + _bash(parser)


def _bash(parser: argparse.ArgumentParser) -> str:
    name, cases = parser.prog, []
    commands = _commands(parser)
    for command, subparser in commands.items():
        for action in _shown(subparser):
            for option in (action.option_strings or [command]) if action.choices else ():
                cases.append(f'"{command} {option}") words={shlex.quote(_choices(action))} ;;')
        options = " ".join(option for action in _shown(subparser) for option in action.option_strings)
        cases.append(f'"{command} "*) [[ $cur == -* ]] && words="{options}" ;;')
    cases = "\n    ".join(cases)
    return f"""_{name}() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" words=""
  case "${{COMP_WORDS[1]}} ${{COMP_WORDS[COMP_CWORD-1]}}" in
    {cases}
  esac
  [[ $COMP_CWORD == 1 ]] && words="{" ".join(commands)} --help --version"
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _{name} {name}"""


def _fish(parser: argparse.ArgumentParser) -> str:
    name, lines = parser.prog, []
    group = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for choice in group._choices_actions:
        lines.append(f"complete -c {name} -n __fish_use_subcommand -f -a {choice.dest} -d {_quoted(choice.help or '')}")
    for command, subparser in group.choices.items():
        start = f"complete -c {name} -n '__fish_seen_subcommand_from {command}'"
        for action in _shown(subparser):
            options = " ".join(f"-{'l' if o.startswith('--') else 's'} {o.lstrip('-')}" for o in action.option_strings)
            values = f"-x -a {_quoted(_choices(action))}" if action.choices else "" if action.nargs == 0 else "-r"
            if options or action.choices:
                lines.append(" ".join(filter(None, (start, options, values, f"-d {_quoted(action.help or '')}"))))
    return "\n".join(lines)


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return next(a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))


def _shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.help != argparse.SUPPRESS]


def _choices(action: argparse.Action) -> str:
    return " ".join(map(str, action.choices or ()))


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
