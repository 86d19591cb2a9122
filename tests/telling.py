"""What an error tells whoever reports it: for tests that search it for a secret."""

import traceback
from contextlib import suppress


def told(error: BaseException) -> str:
    """Return what a report with locals can say of `error` and of the errors behind it, but for the frames of tests."""
    parts = []
    link: BaseException | None = error
    while link is not None:
        parts += [str(link), repr(link), repr(link.args), repr(vars(link)), *_locals(link)]
        link = link.__cause__ or link.__context__
    return "\n".join(parts)


def _locals(error: BaseException) -> list[str]:
    found = []
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if "/tests/" not in frame.f_code.co_filename:
            for name, value in frame.f_locals.items():
                with suppress(AttributeError):  # an object of the standard library that is half made has no repr
                    found.append(f"{name} = {value!r}")
    return found
