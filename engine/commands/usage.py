"""What to say of a command line that does not fit its command: what was given, to which, and what would do."""

from typing import Any, Literal, get_args, get_origin

import cyclopts

from engine.base.errors import meant, one_of

LONGEST = 80
"""Characters of a word that are repeated."""
KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


def mistake(error: cyclopts.CycloptsError, app: cyclopts.App) -> str:
    """The sentence for an error of the parser, of a command line of this app."""
    command = " ".join(error.command_chain or ())
    page = f"`{' '.join(filter(None, (app.name[0], command)))} --help`"
    return f"{command} {_words(error, page)}".lstrip()


def _words(error: cyclopts.CycloptsError, page: str) -> str:
    match error:
        case cyclopts.UnknownCommandError(unused_tokens=[word, *_]):
            return f"{_cut(word)}: no such command{meant(word, _commands(error)) or f'; {page} lists them'}"
        case cyclopts.UnknownOptionError(token=token):
            option = token.keyword or token.value
            options = [name for argument in error.argument_collection if argument.parse for name in argument.names]
            return f"{_cut(option)}: no such option{meant(option, options) or f'; {page} lists them'}"
        case cyclopts.UnusedCliTokensError(unused_tokens=[word, *_] as tokens):
            near = meant(word, _commands(error))
            return f"{one_of(map(_cut, tokens))}: more than it takes{near or f'; {page} tells what that is'}"
        case cyclopts.MissingArgumentError(keyword=None, argument=argument) if argument is not None:
            return f"{_shown(argument.name)}: missing; {page} tells what it is"
        case cyclopts.MissingArgumentError(keyword=option):
            return f"{option}: expected a value after it; {page} tells which"
        case cyclopts.RepeatArgumentError(token=token):
            return f"{token.keyword}: given more than once; expected one"
        case cyclopts.CoercionError(token=token, argument=argument) if token is not None and argument is not None:
            name, value = token.keyword or _shown(argument.name), _cut(token.value)
            return f'{name} = "{value}"; expected {_kind(error.target_type)}{meant(value, _choices(error.target_type))}'
        case cyclopts.ValidationError(argument=argument) if argument is not None and argument.tokens:
            token, limit = argument.tokens[0], error.exception_message.removeprefix("Must be ").rstrip(".")
            return f"{token.keyword or _shown(argument.name)} = {_cut(token.value)}; expected a number {limit}"
        case _:
            return str(error)


def _commands(error: cyclopts.CycloptsError) -> list[str]:
    app = error.app
    return [] if app is None else [name for name in app if not name.startswith("-") and app[name].show]


def _choices(kind: Any) -> tuple[str, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()


def _kind(kind: Any) -> str:
    return f"one of {one_of(choices)}" if (choices := _choices(kind)) else KINDS.get(kind, getattr(kind, "__name__", str(kind)))


def _shown(name: str) -> str:
    """An argument as the help has it, where it has its place: `PRESET`."""
    return name.lstrip("-").upper()


def _cut(word: str) -> str:
    return word[:LONGEST]
