"""The verbs that make something: embed, train."""

from pathlib import Path

from littune.base.errors import InputError
from littune.cli.common import COMPUTE, Count, Flag, app, show, split
from littune.config import Augment, Compute, Pooling, TrainConfig


@app.command
def embed(
    *,
    image: str,
    out: Path,
    pairs: str = "",
    prototypes: Flag = False,
    classes: Path | None = None,
    texts: str = "",
    image_field: str = "",
    pooling: Pooling = "own",
    views: int = 0,
    augment: Augment = "none",
    flip: Flag = False,
    seed: int = 0,
    batch_size: Count = 32,
    strict: Flag = False,
    compute: Compute = COMPUTE,
) -> None:
    """Embed images (or a tower's own class directions) once, into a store that goes on where it stopped.

    Under torchrun, the processes share the images out and write one store together.

    Args:
        image: The image tower: timm:NAME[@CHECKPOINT], hf:NAME_OR_DIR, open_clip:NAME[@CHECKPOINT], onnx:PATH.onnx,
            lit:PATH.npz, package:efficientnet-lite0|1|2, run:DIR.
        out: The store's folder.
        pairs: Where images and texts lie: tar shards, a table, a folder, hf:NAME_OR_DIR.
        prototypes: Store the directions of the tower's own classifier instead of images.
        classes: With --prototypes, a file that says which texts belong to which class.
        texts: Fields that supply texts, separated by commas; by default captions, else the caption.
        image_field: The column of a table that holds the image; by default found by its name.
        pooling: How the tower pools: its own way, or cls, mean, cls+mean.
        views: How many augmented views of each image are stored beside the plain one, to train on.
        augment: What part of the image a view shows: resize, all of it, stretched; inception, random crops.
        flip: Mirror half of the views.
        seed: Decides what is drawn for the views.
        batch_size: Pictures that the tower sees at once.
        strict: Make the first bad sample an error instead of skipping it.
        compute: Where and how precisely the tower runs.
    """
    if bool(pairs) == prototypes:
        raise InputError("embed needs either --pairs SPEC or --prototypes")
    if classes is not None and not prototypes:
        raise InputError("--classes goes with --prototypes")
    if views and prototypes:
        raise InputError("--views goes with --pairs: prototypes are of no image")
    from littune.base.distributed import launched, own_device
    from littune.towers import load_image_tower

    device = own_device(compute.device)
    tower = load_image_tower(image, pooling=pooling, device=device, precision=compute.precision)
    if prototypes:
        from littune.store.prototypes import prototypes as embed_prototypes

        embed_prototypes(tower, out, classes=classes)
        return
    from littune.pairs import open_pairs
    from littune.store.embed import embed as embed_pairs

    source = open_pairs(pairs, texts=split(texts), image_field=image_field or None)
    embed_pairs(
        tower,
        source,
        out,
        batch_size=batch_size,
        workers=compute.workers,
        strict=strict,
        views=views,
        augment=augment,
        flip=flip,
        seed=seed,
        ranks=launched(),
    )


@app.command
def train(config: TrainConfig, *, dry_run: Flag = False, json: Flag = False) -> None:
    """Tune a text tower to read out an image tower, or both together; goes on where it stopped.

    Args:
        config: What the run is made of.
        dry_run: Say what would be trained and what it would take and cost, and train nothing.
        json: Print the final scores (or what --dry-run says) as JSON.
    """
    if dry_run:
        from littune.tuning.forecast import forecast

        about = forecast(config)
        show(vars(about) if json else about.to_text(), json=json)
        return
    from littune.apps.training import run_training
    from littune.base.distributed import launched

    result = run_training(config)
    if json and launched().is_first:
        show({"results": []} if result is None else result.to_dict(), json=True)
    elif result is not None:
        print(result.to_text())
