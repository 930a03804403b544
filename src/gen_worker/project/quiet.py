"""Warnings that a library prints whenever it is imported, and that nobody can act on. They would stand before each command's output."""

import logging

# logger -> what its message holds
_UNHELPFUL = {
    # diffusers imports the processors of pictures; without torchvision the ones based on Pillow are taken, which do the same.
    "transformers.utils.import_utils": ("requires torchvision (not installed); falling back to",),
}


class _Without(logging.Filter):
    def __init__(self, parts: tuple[str, ...]) -> None:
        super().__init__()
        self.parts = parts

    def filter(self, record: logging.LogRecord) -> bool:
        message = str(record.msg)
        return not any(part in message for part in self.parts)


def drop_unhelpful_warnings() -> None:
    """Drop these warnings from now on. Loggers are found by name, so no library is imported; a second call changes nothing."""
    for name, parts in _UNHELPFUL.items():
        logger = logging.getLogger(name)
        if not any(isinstance(found, _Without) for found in logger.filters):
            logger.addFilter(_Without(parts))
