"""What `--demo` needs of `plan` and `run`: phantoms, and that a sentence names it where data are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from xlite_search import places


@contextmanager
def demo_named(demo: bool) -> Iterator[None]:
    """Where the data set is not prepared, the sentence names the demo too, unless this is one."""
    from xlite_search.data.packed import NotPrepared

    try:
        yield
    except NotPrepared as why:
        if demo:
            raise
        raise NotPrepared(f"{why}, or try the search with --demo, which needs no data") from None


def draw_phantoms(name: str) -> None:
    """Prepares the demo's data set, if it is this one and not there."""
    from xlite_search import console
    from xlite_search.data.prepare import prepare as prepare_data
    from xlite_search.data.sources.phantom import Phantom
    from xlite_search.search.study import DEMO_DATA, DEMO_IMAGES, DEMO_SIZE

    if name == DEMO_DATA and not (places.data_folder(name) / "manifest.json").exists():
        counter = console.Counter("phantoms drawn")
        prepare_data(name, Phantom(images=DEMO_IMAGES), DEMO_SIZE, counter, say=console.say)
