"""The command line: one small function a verb.

Results go to stdout (``--json`` for machines), progress and messages to stderr. Bad input is one line on
stderr and exit code 2. Nothing heavy is imported before a verb runs.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import CycloptsError, Parameter, UnusedCliTokensError
from cyclopts.config import Toml

from littune.base.errors import LittuneError
from littune.base.progress import log
from littune.cli import indexing, making, scoring, sending, serving, telling, using
from littune.cli.common import app
from littune.config import read_toml

__all__ = ["app", "indexing", "main", "making", "scoring", "sending", "serving", "telling", "using"]

app.meta.suppress_keyboard_interrupt = False
# The flags of one verb may also lie in a TOML file: littune VERB --config FILE.
app.meta.group_parameters = "Settings file"


@app.meta.default
def _with_settings(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)], config: Path | None = None
) -> None:
    """Run a verb, with flags over a settings file over the defaults.

    Args:
        tokens: The verb and its flags.
        config: A TOML file of the verb's settings; flags win over it.
    """
    if config is not None:
        read_toml(config)  # for its errors, which name the file
        app.config = (Toml(config, must_exist=True, use_commands_as_keys=False),)
    app(tokens, exit_on_error=False, print_error=False, result_action="return_value")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 bad input, 130 interrupted."""
    # Threads that spin while they wait are several times slower as soon as another process wants the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app.meta(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (CycloptsError, LittuneError) as error:
        message = _left_over(error) if isinstance(error, UnusedCliTokensError) else str(error)
        log(f"littune: {' '.join(message.split())}")
        sys.exit(2)
    except KeyboardInterrupt:
        log("littune: interrupted")
        sys.exit(130)
    finally:
        app.config = ()


def _left_over(error: UnusedCliTokensError) -> str:
    """What was left over on the command line, and what may have been meant."""
    tokens, verb = error.unused_tokens or [], error.command_chain or ()
    fix = f"see littune {' '.join(verb)} --help"
    if "search" in verb:
        fix = 'quote the words, as in "two dogs in the snow"'
    elif any(Path(token).exists() for token in tokens):
        fix = "quote a pattern, as in 'shards/*.tar', for littune to read it instead of the shell"
    more = f" and {len(tokens) - 3} more" if len(tokens) > 3 else ""
    return f"nothing takes {' '.join(tokens[:3])}{more}; {fix}"
