"""The log of tierkit while a trial runs: kept from the screen, and there to be looked at."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class Lines(logging.Handler):
    """What was logged, a text for each record."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def warnings_kept() -> Iterator[list[str]]:
    """The warnings of tierkit from now on, which nobody else gets."""
    logger, lines = logging.getLogger("tierkit"), Lines()
    passed_on = logger.propagate
    logger.addHandler(lines)
    logger.propagate = False
    try:
        yield lines.said
    finally:
        logger.propagate = passed_on
        logger.removeHandler(lines)
