"""What an error tells whoever prints it: for tests that search it for a secret."""

import traceback


def told(error: BaseException) -> str:
    """Return everything that a report with locals says of `error` and its chain, but for the frames of tests."""
    parts = []
    link: BaseException | None = error
    while link is not None:
        captured = traceback.TracebackException.from_exception(link, capture_locals=True)
        frames = [frame for frame in captured.stack if "/tests/" not in frame.filename]
        parts += [str(link), repr(link), repr(link.args), repr(vars(link)), *(str(frame.locals) for frame in frames)]
        link = link.__cause__ or link.__context__
    return "\n".join(parts)
