"""How a fixup is written.

moto is patched at its own seams: a fixup replaces one method of moto, calls
the original where it can, and says in its docstring what AWS does and what
moto 5.2.5 does instead.  Every fixup is listed in ``FIXUPS``, so that the
sandbox's own test can ask each of them whether it is still needed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..settings import settings

Fixup = Callable[[], None]

FIXUPS: dict[str, Fixup] = {}


def fixup(function: Fixup) -> Fixup:
    """List ``function`` as a fixup; ``apply()`` calls it once."""
    if function.__name__ in FIXUPS:
        raise ValueError(f"two fixups are called {function.__name__}")
    FIXUPS[function.__name__] = function
    return function


def wrap(owner: Any, name: str) -> Callable[[Callable[..., Any]], None]:
    """Replace ``owner.name`` by a function that gets the original first.

    >>> @wrap(Backend, "delete_thing")
    ... def delete_thing(original, self, name): ...
    """
    original = getattr(owner, name)

    def replace(replacement: Callable[..., Any]) -> None:
        @functools.wraps(original)
        def patched(*args: Any, **kwargs: Any) -> Any:
            return replacement(original, *args, **kwargs)

        setattr(owner, name, patched)

    return replace


def page(
    items: list[Any], token: str | None, size: int
) -> tuple[list[Any], str | None]:
    """One page of ``items``, and the token of the next one.

    The token is the number of items already given: opaque to a client, and
    good enough for an account that does not change between two pages.
    """
    start = int(token) if token else 0
    end = start + min(size, settings.largest_page)
    return items[start:end], str(end) if end < len(items) else None
