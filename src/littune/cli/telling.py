"""The verbs that tell and show: info, demo."""

from pathlib import Path

from littune.cli.common import Flag, app, show


@app.command
def info(what: str, *, json: Flag = False) -> None:
    """Say what a path or spec is: a run, a store, an image or text tower, pairs; or which evaluation sets are known.

    Args:
        what: The path or spec; sets for the known evaluation sets.
        json: Print it as JSON.
    """
    from littune.apps.info import describe, to_text

    about = describe(what)
    show(about if json else to_text(about), json=json)


@app.command
def demo(*, out: Path = Path("demo"), image: str = "package:efficientnet-lite2") -> None:
    """Train on a tower's own classifier, then classify and search photographs; writes a page that shows it.

    Args:
        out: The folder for the page and what it is made of.
        image: The image tower.
    """
    from littune.apps.demo import run_demo

    run_demo(out, image=image)
