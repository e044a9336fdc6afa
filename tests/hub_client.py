"""A process that talks to a stand-in for the hub: huggingface_hub reads its address from the environment at import.

As a script, it evaluates each line of its input and answers with a line of JSON.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from tests.hub_server import TOKEN

_ROOT = Path(__file__).parents[1]


class Client:
    """The process, asked for one thing after the other."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.said = ""
        """What the last thing that it was asked for wrote to stdout and stderr."""

    def ask(self, expression: str, *, token: str = TOKEN) -> str:
        """The value of a Python expression in the process, as text; of a LittuneError, what it says."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([expression, token]) + "\n")
        self._process.stdin.flush()
        answer: str
        answer, self.said = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def client_of(url: str, home: Path, *, offline: bool = False) -> Iterator[Client]:
    """A client while the block runs.

    Args:
        url: the hub's address.
        home: where its cache lies.
        offline: whether it may not ask the hub.
    """
    env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    env |= {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline)), "PYTHONPATH": str(_ROOT)}
    env |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    env.pop("HF_HUB_CACHE", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hub_client"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Client(process)
    finally:
        process.communicate()


def _serve() -> None:
    from littune.apps.hub import push
    from littune.base.errors import LittuneError
    from littune.cli import main
    from littune.model.hub_runs import run_folder_of_hub
    from littune.model.lit import LiT

    names = {"LiT": LiT, "Path": Path, "main": main, "push": push, "run_folder_of_hub": run_folder_of_hub}
    for line in sys.stdin:
        expression, token = json.loads(line)
        os.environ["HF_TOKEN"] = token
        said = StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            try:
                answer = str(eval(expression, names))
            except LittuneError as error:
                answer = str(error)
            except BaseException as error:
                answer = f"UNEXPECTED {type(error).__name__}: {error}"
        print(json.dumps([answer, said.getvalue()]), flush=True)


if __name__ == "__main__":
    _serve()
