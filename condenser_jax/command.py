"""What every command of launch/ shares: flags, messages, exit statuses.

    command.config_flag()
    command.run(main)

A user's mistake is one line on stderr and status 2; being told to stop is no failure; only what
nobody foresaw shows a stack trace. So it is for the experiments of benchmarks/, which have other
flags: `command.finish(main)`.
"""

import difflib
import errno
import logging
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from condenser_jax import environment
from condenser_jax.errors import (
    EXIT_DONE,
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_PREEMPTED,
    EXIT_USER_ERROR,
    Preempted,
    RunFailed,
    UserError,
    choose,
)

if TYPE_CHECKING:  # a command starts quickly, and once more (`tune_process`)
    from condenser_jax.retrieval.collection import CollectionOptions

CONFIG = "config"
USUAL: dict[str, str] = {}  # {CONFIG: the file that is read where none is named}
FULL = (errno.ENOSPC, errno.EDQUOT)
UNDER_WAY = 0.05  # seconds until a write that had begun has ended
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR)
flags.disclaim_key_flags()  # --help shows what is declared here among the flags of the command


def config_flag(default: str | None = None) -> flags.FlagHolder:
    """Declares --config=FILE[:VARIANT], overridden by --config.key=value; `.value` is locked.

    The default is not ml_collections': that reads the file, and applies what is overridden, when
    the flag is declared, so that a mistake would end in a stack trace.
    """
    told = "configuration file, e.g. configs/condenser.py:smoke"
    if default:
        USUAL[CONFIG] = default
        told += f"; default: {default}"
    return config_flags.DEFINE_config_file(CONFIG, None, told, lock_config=True)


def reading_flags() -> dict[str, flags.FlagHolder]:
    """Declares, for every command that reads a collection, how it is read: {field of
    `CollectionOptions`: flag}.
    """
    return {
        "bad_share": flags.DEFINE_float(
            "bad_share", 0.01, "broken records above this share are fatal"
        ),
        "heldout_share": flags.DEFINE_float(
            "heldout_share", 0.1, "docstrings: this share of the modules is `test`, as much `dev`"
        ),
        "split_seed": flags.DEFINE_integer(
            "split_seed", 0, "docstrings: which modules; the seed of the run that held them out"
        ),
    }


def reading_options(given: Mapping[str, flags.FlagHolder]) -> "CollectionOptions":
    """What `reading_flags` were set to. Raises UserError for a share out of range."""
    from condenser_jax.retrieval.collection import CollectionOptions

    return CollectionOptions(**values(given))


def usage_flags() -> dict[str, flags.FlagHolder]:
    """Declares, for every command that reads an encoder, what its files may not tell: {field of
    `Usage`: flag}.
    """
    untold = "models that do not say it"
    return {
        "pooling": flags.DEFINE_string("pooling", None, f"cls or mean, of {untold}"),
        "query_prefix": flags.DEFINE_string(
            "query_prefix", None, f"in front of every query, of {untold}, e.g. 'query: ' (E5)"
        ),
        "passage_prefix": flags.DEFINE_string(
            "passage_prefix", None, f"in front of every passage, of {untold}, e.g. 'passage: '"
        ),
    }


def values(given: Mapping[str, flags.FlagHolder]) -> dict[str, Any]:
    """What flags were set to."""
    return {name: flag.value for name, flag in given.items()}


def refuse_idle(reason: str, *idle: flags.FlagHolder) -> None:
    """Raises UserError for those of the flags that were given another value than they have anyhow,
    which nothing would read.
    """
    given = [f"--{flag.name}" for flag in idle if flag.present and flag.value != flag.default]
    if given:
        them = "it" if len(given) == 1 else "them"
        raise UserError(f"{' and '.join(given)} would be ignored: {reason}; leave {them} out")


def default_workdir() -> Path:
    """runs/condenser for --config=configs/condenser.py, runs/condenser-smoke for its variant."""
    name, _, variant = (_config_path(sys.argv) or "").partition(":")
    return Path("runs", "-".join(filter(None, [Path(name).stem, variant])))


def run(main: Callable[[], None]) -> None:
    """Parses the flags, calls `main` and exits with the status of README.md; never returns."""
    environment.tune_process()
    set_up_logging()
    finish(lambda: _call_with_flags(main))


def finish(main: Callable[[], None]) -> None:
    """Calls `main` and exits as `run` does; never returns."""
    status, message = _outcome(main)
    number = _number_in_group()
    if message and not (number and status == EXIT_PREEMPTED):  # all stop; one says it
        _say_last(f"process {number}: {message}" if number else message)
    sys.stdout.flush()
    sys.stderr.flush()
    if status in (EXIT_FAILURE, EXIT_USER_ERROR, EXIT_INTERRUPTED):
        # An ordinary exit would wait many minutes: for peers that wait for us (a lost one they
        # notice), or for threads of a save that failed, which wait for a directory to be made.
        os._exit(status)
    sys.exit(status)


def _say_last(message: str) -> None:
    """Writes the last word to stderr: threads of libraries that a failure left behind may go on
    to print while the process ends, and nobody hears them.

    Our own lines are written as they end; what waits in the buffer is half a line of such a thread.
    """
    sys.stdout.flush()
    ours, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    time.sleep(UNDER_WAY)
    with open(ours, "w", encoding="utf-8", errors="backslashreplace") as stderr:
        print(message, file=stderr)


def split_off_command() -> list[str]:
    """Takes what stands behind `--` off the command line, and returns it: another command."""
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    sys.argv, behind = sys.argv[:end], sys.argv[end + 1 :]
    return behind


def join_group(
    coordinator: str | None, processes: int | None, number: int | None, heartbeat: int | None
) -> None:
    """Joins the group of processes that train together, if any (condenser_jax/cluster.py).

    Lines of the log are the first process's from then on; of the others only warnings are shown.
    """
    from condenser_jax import cluster
    from condenser_jax.training.signals import keep_sigterm_until_training

    given = (coordinator, processes, number, heartbeat)
    cluster.join(dict(zip(environment.GROUP_VARIABLES, given, strict=True)))
    place = _number_in_group()
    if place is not None:
        keep_sigterm_until_training(_stop)
    if place:
        set_up_logging(place)


def _call_with_flags(main: Callable[[], None]) -> None:
    try:
        parse_flags(sys.argv)
    except SystemExit:  # --help has said what there is to say
        sys.exit(EXIT_DONE)
    main()


def _outcome(main: Callable[[], None]) -> tuple[int, str]:
    """Calls `main` and returns (exit status, what to say); SystemExit passes."""
    signal.signal(signal.SIGTERM, _stop)  # until a run has something to save
    try:
        main()
    except UserError as error:
        return EXIT_USER_ERROR, f"error: {error}"
    except Preempted as stop:
        return EXIT_PREEMPTED, str(stop)
    except RunFailed as failure:
        return EXIT_FAILURE, f"error: {failure}"
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED, "interrupted"
    except Exception as error:
        mistake = _mistake_of_the_system(error) if isinstance(error, OSError) else ""
        return (EXIT_USER_ERROR, mistake) if mistake else (EXIT_FAILURE, traceback.format_exc())
    return EXIT_DONE, ""


def _stop(number: int, frame: FrameType | None) -> None:
    """Leaves at once: what is prepared takes its name when it is whole, and an exception raised
    here could be lost in a callback of a library.
    """
    os.write(2, b"stopped as asked; nothing is lost: start the same command again\n")
    os._exit(EXIT_PREEMPTED)


def _mistake_of_the_system(error: OSError) -> str:
    """What to say of a full disk or a place that may not be written; "" for any other error."""
    # shutil collects the errors of several files into one that has their texts alone.
    is_full = error.errno in FULL or any(f"[Errno {number}]" in str(error) for number in FULL)
    if is_full:
        where = f" while writing {error.filename}" if error.filename else ""
        return f"error: disk full{where}; free some space and start again"
    if error.errno in FORBIDDEN and error.filename:
        return f"error: {error.filename} cannot be used: {error.strerror}; name another place"
    return ""


def _number_in_group() -> int | None:
    """Which process of its group this is; None if it joined none."""
    if "jax" not in sys.modules:
        return None
    import jax

    return jax.process_index() if jax.distributed.is_initialized() else None


class _Lines(logging.Formatter):
    """Plain lines; on a terminal each takes the place of the progress line."""

    def __init__(self, number: int) -> None:
        super().__init__(f"process {number}: %(message)s" if number else "%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        clear = "\r\x1b[K" if sys.stderr.isatty() else ""
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return f"{clear}{level}{super().format(record)}"


def set_up_logging(number: int = 0) -> None:
    """Shows what `condenser_jax` logs as plain lines on stderr, and silences absl, asyncio, orbax.

    Their errors reach us as exceptions as well, which say it in one line. Of a process with another
    `number` than 0 only warnings are shown.
    """
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # orbax's futures, on a full disk
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines(number))
    logger = logging.getLogger("condenser_jax")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.WARNING if number else logging.INFO)
    logger.propagate = False


def parse_flags(argv: list[str]) -> None:
    """Parses the command line; raises UserError for what cannot be understood in it."""
    argv = with_home(argv)
    if CONFIG in USUAL and not any(re.match(rf"--?{CONFIG}(=|$)", word) for word in argv):
        argv = [argv[0], f"--{CONFIG}={USUAL[CONFIG]}", *argv[1:]]
    app.define_help_flags()
    # `configs/*.py` import each other, and the path of launch/*.py lacks the repository's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    try:
        rest = flags.FLAGS(argv)[1:]
        _check_config_file(argv)
    except Exception as error:
        _check_config_file(argv)
        _check_config_keys(argv)
        raise _as_user_error(error) from error
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}; flags are written --name=value")


def with_home(argv: list[str]) -> list[str]:
    """The words of a command line, with the home directory in --flag=~/path, which shells leave as
    it is: else a folder of the name "~" would be made.
    """
    home = os.path.expanduser("~")
    return [re.sub(r"^(--[^=]+=)~(?=/|$)", lambda flag: flag[1] + home, word) for word in argv]


def _as_user_error(error: Exception) -> Exception:
    """The user's mistake that caused an error of parsing; the error itself if there is none."""
    mistakes = [cause for cause in _causes(error) if isinstance(cause, UserError)]
    if mistakes:  # raised by get_config; ml_collections wraps it in its own stack trace
        return UserError(str(mistakes[-1]))
    text = str(error).strip()
    if isinstance(error, flags.Error) and "\n" not in text:
        return UserError(text)
    return error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _config_path(argv: list[str]) -> str:
    """What --config says, read without parsing; "" if it is not given and has no default."""
    path = USUAL.get(CONFIG, "")
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = argument.lstrip("-").partition("=")
        if name == CONFIG and argument.startswith("-"):
            path = value if equals else following
    return path


def _check_config_file(argv: list[str]) -> None:
    """ml_collections reports a missing file only when its configuration is used."""
    if CONFIG not in flags.FLAGS:
        return
    path = _config_path(argv)
    if not path:
        raise UserError("--config is missing; for example --config=configs/condenser.py")
    file = Path(path.split(":", 1)[0])
    if not file.is_file():
        others = [str(other) for other in sorted(file.parent.glob("*.py"))]
        near = difflib.get_close_matches(str(file), others, n=1)
        hint = f"did you mean {near[0]}?" if near else "name a Python file with get_config(variant)"
        raise UserError(f"config file {file} does not exist; {hint}")


def _check_config_keys(argv: list[str]) -> None:
    """Raises UserError for the first --config.key that the configuration does not have."""
    overrides = [match[1] for a in argv if (match := re.match(rf"--?(?:no)?{CONFIG}\.([\w.]+)", a))]
    if not overrides or CONFIG not in flags.FLAGS:
        return
    try:
        parser = config_flags.config_flags.ConfigFileFlagParser(CONFIG)
        config = parser.parse(_config_path(argv))
    except Exception:
        return  # the file itself is at fault, and the error at hand says so
    for override in overrides:
        _check_key(config, override)


def _check_key(config: Any, key: str) -> None:
    node, parents = config, ""
    for name in key.split("."):
        if not hasattr(node, "keys"):
            raise UserError(f"there is no key {key!r}: {parents[:-1]!r} is a value, not a section")
        choose("configuration key", parents + name, [parents + known for known in node.keys()])
        node, parents = node[name], f"{parents}{name}."
