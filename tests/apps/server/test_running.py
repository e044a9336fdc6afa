"""The server from start to end, as the verb starts it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from littune.apps.server.running import serve
from littune.base.errors import InputError
from tests.apps.export.drawn_models import image_tower, lit, text_tower
from tests.apps.server.conftest import encoded


def test_what_cannot_be_bound() -> None:
    with pytest.raises(InputError, match="open to a network"):
        serve("nowhere", host="0.0.0.0")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="cannot bind"):
        serve("nowhere", port=taken.getsockname()[1])
    with pytest.raises(InputError, match=r"cannot bind 192\.0\.2\.1"):
        serve("nowhere", host="192.0.2.1", port=0, token="a-long-enough-token")


@pytest.mark.slow
def test_a_run_is_served_until_the_process_is_told_to_stop(tmp_path: Path) -> None:
    model = lit(text_tower(), image_tower("test_vit"))
    model.save(tmp_path / "run", bundle=True)
    command = [sys.executable, "-m", "littune", "serve", "--run", str(tmp_path / "run"), "--port", "0"]
    with subprocess.Popen(
        [*command, "--max-batch", "4", "--precision", "float32"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LITTUNE_TOKEN": "a-long-enough-token"},
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("serving "), line
            url = line.split(" at ", 1)[1].split(";")[0]
            headers = {"authorization": "Bearer a-long-enough-token"}
            labels = ["a cat", "a dog"]
            asked = {"files": {"image": encoded("red", (300, 200))}, "data": {"labels": labels}}
            assert httpx.post(f"{url}/classify", **asked).status_code == 401  # type: ignore[arg-type]
            answer = httpx.post(f"{url}/classify", headers=headers, timeout=30, **asked)  # type: ignore[arg-type]
            expected = model.classify(encoded("red", (300, 200)), labels)
            assert [one["label"] for one in answer.json()["scores"]] == [score.label for score in expected]
            assert answer.json()["scores"][0]["score"] == pytest.approx(expected[0].score, abs=1e-4)
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
    assert process.returncode == -signal.SIGTERM and "Traceback" not in rest
