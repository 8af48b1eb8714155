"""Whose code an engine may execute. A run directory is data, wherever it comes from; but a specification may name Python functions.

The fields that do are declared as such (`sections.CODE`). A run that this user made here carries a signature over them and its id, by a
key that only this user reads. Any other run that names code is asked about: a command shows the code and asks on a terminal, or refuses
where there is none, unless `--trust` says so beforehand; what is trusted once is signed. A preset file that the user names is trusted;
the specification inside a run directory is that run's, however it is named.

Whoever starts an engine looks (`need`), and so does the engine, at the specification that it has itself read.
"""

import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec
import platformdirs
from msgspec import Meta

from engine.base.errors import UserError
from engine.base.files import read_text, resolved
from engine.base.text import harmless, print_line
from engine.record.identity import give_identity, identity, read_facts, write_facts
from engine.record.safe_read import refuse_links
from engine.spec import MAX_SPEC_BYTES, load_recorded
from engine.spec.sections import CODE, RunSpec, Section

FILE = "trust.json"
"""In a run: the signature."""
FORMAT = 1
KEY_BYTES = 32
MAX_SHOWN = 2000
"""Characters of a field that a question shows."""
RUN_FILES = (
    "columns.json", "metrics.f64", "events.jsonl", "state.json", "provenance.json", "identity.json", FILE, "inbox", "checkpoints",
)  # fmt: skip
"""What else there is in a run directory: beside one of them a spec.toml is a run's, and no preset."""
granted: set[str] = set()
"""Digests of the code that this process may have executed: made or trusted by its user."""
_leader = False
"""Whether this process, as one that follows in a group, executes what process 0 names."""

Result = TypeVar("Result")


class Untrusted(UserError):
    """Code of a run that was neither made here by this user nor trusted. Nothing of it was executed."""

    def __init__(self, what: str, code: dict[str, Any], grant: Callable[[], str]):
        self.what, self.lines, self.grant = what, words(code), grant
        """`grant` trusts it, and returns why that could not be written down, if so."""
        super().__init__(
            f"{what}: not made here by you, and it would execute code: {'; '.join(self.lines)}. Nothing was executed; "
            "--trust allows it (in Python trust=True), and so does y on a terminal"
        )

    @property
    def question(self) -> str:
        """The code and the question, on lines."""
        return "\n".join([f"{self.what}: not made here by you. It would execute code, with all that you may do:",
                          *(f"  {line}" for line in self.lines), "Execute it, now and later?"])  # fmt: skip


# -- what is code


def code_of(spec: RunSpec) -> dict[str, Any]:
    """What says which code is executed, where it lies and what it is called with, by the path of the field; empty where no field
    names a function. Fields that are empty are left out, so that a later version may have more of them.
    """
    declared = list(_declared(spec))
    named = any(value and "function" in roles for _, roles, value in declared)
    return {path: value for path, _, value in declared if value} if named else {}


def functions_of(spec: RunSpec) -> list[str]:
    """Every `module:name` that a specification has."""
    values = [value for _, roles, value in _declared(spec) if "function" in roles]
    return [each for value in values for each in (value.values() if isinstance(value, dict) else [value]) if each]


def _declared(section: Any, path: str = "") -> Iterator[tuple[str, frozenset[str], Any]]:
    """Every field declared with `sections.CODE` below a section of a specification: its path, what it is declared as, and its value."""
    if isinstance(section, Section):
        for name, roles in _fields(type(section)):
            value, at = getattr(section, name), f"{path}.{name}" if path else name
            if roles:
                yield at, roles, msgspec.to_builtins(value)
            else:
                yield from _declared(value, at)
    elif isinstance(section, tuple | list):
        for k, each in enumerate(section):
            yield from _declared(each, f"{path}[{k}]")
    elif isinstance(section, dict):
        for key, each in section.items():
            yield from _declared(each, f"{path}.{key}")


@cache
def _fields(kind: type) -> tuple[tuple[str, frozenset[str]], ...]:
    """The fields of a section, each with what it is declared as."""
    return tuple((field.name, frozenset(_roles(field.type))) for field in msgspec.structs.fields(kind))


def _roles(annotation: Any) -> Iterator[str]:
    """The roles that an annotation declares with `sections.CODE`, anywhere in it: a list of functions has the role inside."""
    for argument in get_args(annotation):
        if isinstance(argument, Meta):
            if CODE in (argument.extra or {}):
                yield str(argument.extra[CODE])  # type: ignore[index]
        else:
            yield from _roles(argument)


def words(code: dict[str, Any]) -> list[str]:
    """The code, a line a field: as JSON, so that no value looks like another line."""
    shown = [f"{path} = {harmless(json.dumps(value, ensure_ascii=False))}" for path, value in code.items()]
    return [line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}… ({len(line):,} characters)" for line in shown]


def digest(code: dict[str, Any]) -> str:
    """The sum that stands for this code on the command line of an engine."""
    from hashlib import sha256

    return sha256(_canonical("", code)).hexdigest()


def _canonical(run: str, code: dict[str, Any]) -> bytes:
    """The code of the run with this id, as it is signed."""
    return json.dumps(["eos code", FORMAT, run, sorted(code.items())], sort_keys=True, separators=(",", ":")).encode()


# -- what is trusted


def need(path: Path, spec: RunSpec, given: str = "") -> None:
    """Raise Untrusted where the run at this path names code that this user has neither made here nor trusted.

    `given` is the digest of the code that whoever started this process has seen and trusts.
    """
    code = code_of(spec)
    if code and digest(code) != given and not _is_granted(code) and not _is_signed(path, code):
        raise Untrusted(f"run {path.name or path}", code, lambda: grant(path, spec))


def need_preset(preset: str, spec: RunSpec) -> None:
    """Raise Untrusted where a specification that names code comes from inside a run that is not trusted. Any other preset file, and
    whatever is given on the command line, is of the user's own choice.
    """
    code = code_of(spec)
    folder = _run_around(preset) if code else None
    if folder is None or _is_granted(code):
        return
    with suppress(UserError, OSError):
        file = folder / "spec.toml"
        if _is_signed(folder, code_of(load_recorded(read_text(file, MAX_SPEC_BYTES), str(file)))):
            return
    raise Untrusted(preset, code, lambda: _remember(code))


def need_word(spec: RunSpec) -> None:
    """Raise Untrusted for a specification that names code and comes from nowhere that could be looked at."""
    code = code_of(spec)
    if code and not _is_granted(code):
        raise Untrusted(f"{spec.name}: a specification made in Python, or read from a run", code, lambda: _remember(code))


def grant(path: Path, spec: RunSpec) -> str:
    """Trust the code that the run at this path names, in this process, and in any other by a signature. Returns why that could not be
    written, in words; then it will be asked about again.
    """
    code = code_of(spec)
    if not code:
        return ""
    _remember(code)
    if _is_signed(path, code):
        return ""
    try:
        refuse_links(path)
        signature = _signature(give_identity(path), code, key(make=True))
        write_facts(path / FILE, {"format": FORMAT, "signature": signature})
    except OSError as error:
        return f"{error.filename or path}: {error.strerror or error}"
    except UserError as error:
        return str(error)
    return ""


def heed_leader(trusted: bool) -> None:
    """Have this process, where it follows in a group, execute what code process 0 names; or not."""
    global _leader  # noqa: PLW0603
    _leader = trusted


def heeds_leader() -> bool:
    """Whether this process executes the code that process 0 names."""
    return _leader


def option(spec: RunSpec) -> list[str]:
    """For the command line of an engine: the code that this process trusts it with."""
    code = code_of(spec)
    return ["--code", digest(code)] if code and _is_granted(code) else []


def asking(act: Callable[[], Result], trust: bool = False) -> Result:
    """The value of `act`. Where code that is not trusted stands in the way, the user is asked on a terminal, unless `trust` allows it."""
    try:
        return act()
    except Untrusted as refusal:
        if not trust and not _says_yes(refusal):
            raise
        unsigned = refusal.grant()
    if unsigned:
        print_line(f"trusted this once, for that cannot be written down ({unsigned})", error=True)
    return act()


def _says_yes(refusal: Untrusted) -> bool:
    """Whether the user allows the code on a terminal; no where there is no terminal to ask on."""
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr)):
        return False
    print(f"{harmless(refusal.question, lines=True)} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _run_around(preset: str) -> Path | None:
    """The run directory that a preset file is the specification of; None for any other preset."""
    if not (preset.endswith(".toml") or "/" in preset):
        return None
    file = resolved(preset)
    beside = file.name == "spec.toml" and any(os.path.lexists(file.parent / name) for name in RUN_FILES)
    return file.parent if beside else None


def _remember(code: dict[str, Any]) -> str:
    granted.add(digest(code))
    return ""


def _is_granted(code: dict[str, Any]) -> bool:
    return bool(granted) and digest(code) in granted


def _is_signed(path: Path, code: dict[str, Any]) -> bool:
    """Whether the run at this path carries this user's signature of this code."""
    import hmac

    run, given = identity(path), read_facts(path / FILE).get("signature")
    if not run or not isinstance(given, str) or not given.isascii():
        return False
    try:
        return hmac.compare_digest(given, _signature(run, code, key()))
    except (OSError, UserError):
        return False


def _signature(run: str, code: dict[str, Any], secret: bytes) -> str:
    import hmac

    return hmac.new(secret, _canonical(run, code), "sha256").hexdigest()


# -- the key


def key_path() -> Path:
    """Where the key lies: not among the runs, whose folder is copied and given to others."""
    try:
        return Path(platformdirs.user_data_dir("eos-trust")) / "key"
    except RuntimeError:  # a user without a home folder, which `key` tells
        return Path("key")


def key(make: bool = False) -> bytes:
    """This user's key. Raises OSError where there is none, unless one is to be made; UserError where the file is not this user's alone."""
    path = key_path()
    if not path.is_absolute():
        raise UserError(f"{path}: no folder of this user's own to keep a key in; set HOME or XDG_DATA_HOME")
    try:
        return _read_key(path)
    except FileNotFoundError:
        if not make:
            raise
    _make_key(path)
    return _read_key(path)


def _read_key(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: the key cannot be read ({error.strerror}); remove it, and a new one is made") from None
    try:
        facts = os.fstat(descriptor)
        secret = os.read(descriptor, KEY_BYTES + 1) if stat.S_ISREG(facts.st_mode) else b""
    finally:
        os.close(descriptor)
    if len(secret) != KEY_BYTES or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        raise UserError(f"{path}: not a key that this user alone reads ({KEY_BYTES} bytes, mode 0600); remove it, and a new one is made")
    return secret


def _make_key(path: Path) -> None:
    """A new key, whole from the moment it can be seen. One that another process has made meanwhile stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".key.{os.urandom(8).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as handle:
            os.fchmod(descriptor, 0o600)  # whatever the umask takes away
            handle.write(os.urandom(KEY_BYTES))
            handle.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(draft, path)  # unlike a rename, it replaces nothing
    finally:
        draft.unlink(missing_ok=True)
