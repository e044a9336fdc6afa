"""The verbs that hand something on: export, push."""

from pathlib import Path

from littune.base.progress import log
from littune.cli.common import COMPUTE, Flag, Many, app, check_run, check_sets, check_there, show
from littune.config import Compute, ExportTarget


@app.command
def export(
    what: str,
    *,
    to: ExportTarget,
    out: Path,
    int8: Flag = False,
    on: Many = (),
    json: Flag = False,
    compute: Compute = COMPUTE,
) -> None:
    """Write a run, a store or an image tower in a format that others read.

    A run goes to littune (with its image tower), npz (the published LiT names), onnx, open_clip,
    sentence-transformers or transformers; a store to lance, npy or parquet; an image tower to onnx.

    Args:
        what: A run's folder, hf:NAME on the hub or lit:PATH.npz; a store; an image tower's spec (hf: of a folder
            that is here).
        to: The format.
        out: The folder to write.
        int8: With onnx, store weights as int8; what that costs is measured and printed.
        on: With --int8, the sets to measure on; by default those that the run was scored on.
        json: Say what was written as JSON.
        compute: Where and how precisely towers run.
    """
    check_run(what)
    check_sets(on)
    from littune.apps.export import ExportOptions
    from littune.apps.export import export as export_to

    options = ExportOptions(int8=int8, on=on, device=compute.device, precision=compute.precision)
    exported = export_to(what, to=to, out=out, options=options)
    if json:
        show({"out": str(out), "notes": list(exported.notes), "how_to_load": exported.how_to_load}, json=True)
        return
    for note in exported.notes:
        print(note)
    log(f"written to {out}; its README.md says how to load it")


@app.command
def push(run: Path, name: str, *, private: Flag = False, json: Flag = False) -> None:
    """Upload a run to the Hugging Face hub, from where --run hf:NAME loads it; its card comes along.

    Args:
        run: The folder of a finished run.
        name: hf:USER/NAME; the repository is made where it is not there.
        private: Make it one that only you may read.
        json: Print where it lies as JSON.
    """
    check_there("run", run)
    from littune.apps.hub import push as push_to_hub

    url = push_to_hub(run, name, private=private)
    show({"url": url} if json else url, json=json)
