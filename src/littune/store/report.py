"""What is said when a store has been embedded."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from littune.base.progress import log
from littune.base.stores import MANIFEST
from littune.store.manifest import Manifest, Skipped

_REASONS_SHOWN = 20
_KEYS_SHOWN = 10


def report(folder: Path, before: Manifest, manifest: Manifest, seconds: float) -> None:
    """Say how many images were embedded and how fast, and which were skipped and why."""
    rows = manifest.num_rows - before.num_rows
    earlier = f" ({before.num_rows:,} earlier)" if before.num_rows else ""
    log(
        f"embedded {manifest.num_rows:,} images{earlier} into {folder}, "
        f"{rows / max(seconds, 1e-9):,.1f} images/s, skipped {len(manifest.skipped):,}"
    )
    by_reason = _by_reason(manifest.skipped)
    for reason, keys in list(by_reason.items())[:_REASONS_SHOWN]:
        log(f"  skipped {len(keys):,}, {reason}: {', '.join(keys[:_KEYS_SHOWN])}{and_more(len(keys) - _KEYS_SHOWN)}")
    if len(by_reason) > _REASONS_SHOWN or any(len(keys) > _KEYS_SHOWN for keys in by_reason.values()):
        log(f"  all {len(manifest.skipped):,} of them with their reasons: {folder / MANIFEST}")


def and_more(count: int) -> str:
    """What follows the names that are shown; nothing where they are all."""
    return f" and {count:,} more" if count > 0 else ""


def _by_reason(skipped: Sequence[Skipped]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in skipped:
        found.setdefault(row.reason, []).append(f"{row.key} in {row.source}")
    return found
