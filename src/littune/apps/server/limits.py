"""How much one request, one client and all together may ask of the server.

What bounds the fields of a body is a constant here, for it is a part of the published schema; what depends on the
machine is a setting.
"""

from dataclasses import dataclass, fields

from cyclopts import Parameter

from littune.base.errors import InputError

MAX_LABELS = 1000
MAX_TEMPLATES = 100
MAX_PROMPTS = 4096
"""Labels × templates: some ten seconds of a small text tower on two cores, once for each label set."""
MAX_TEXT = 1000
"""Characters of a label, a template, a query, a text."""
MAX_TEXTS = 256
MAX_HITS = 1000
MAX_WITHOUT = 16
MAX_FILTERS = 16
MAX_CHOICES = 100


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the server takes on at once, and for how long."""

    max_body_mb: int = 32
    """The largest body of a request, in MB; a picture in JSON takes a third more than its file."""
    max_pixels: int = 50_000_000
    """The most pixels of a picture."""
    max_batch: int = 32
    """The most pictures or texts that run through a tower together."""
    max_queue: int = 256
    """Requests that may be under way; the next one is refused with 503."""
    max_per_client: int = 128
    """Requests that may be under way for one address; the next one is refused with 429."""
    timeout: float = 60.0
    """Seconds that a request may take once its body is there; after that it is given up with 504."""
    body_timeout: float = 30.0
    """Seconds that a client may take to send its body; after that it is refused with 408."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value <= 0:
                raise InputError(f"{field.name} = {value} is not usable: it must be above 0")

    @property
    def max_body(self) -> int:
        """``max_body_mb`` in bytes."""
        return self.max_body_mb << 20

    @property
    def max_held(self) -> int:
        """The bytes of all bodies that are held at once."""
        return 16 * self.max_body
