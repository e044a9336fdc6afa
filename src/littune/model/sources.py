"""Specs → models: a run's folder, ``hf:NAME`` on the hub, ``lit:PATH.npz`` (design: "Specs")."""

from pathlib import Path

from littune.model.lit import LiT


def load_model(run: str) -> LiT:
    """The model that ``run`` names, on the CPU.

    Raises:
        InputError: there is no such run or checkpoint, or it is damaged.
    """
    if run.startswith("lit:"):
        from littune.model.published import load_published

        return load_published(run)
    if run.startswith("hf:"):
        from littune.model.hub_runs import run_folder_of_hub

        return LiT.of_folder(run_folder_of_hub(run.removeprefix("hf:")))
    return LiT.of_folder(Path(run))
