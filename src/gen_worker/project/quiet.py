"""Drops warnings that a library prints on every import and that nobody can act on. They would come before each command's output."""

import logging

# logger -> text in its message
_UNHELPFUL = {
    # diffusers imports image processors; without torchvision it uses the ones based on Pillow, which do the same.
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
    """Drop these warnings from now on. Loggers are found by name, so no library is imported. A second call changes nothing."""
    for name, parts in _UNHELPFUL.items():
        logger = logging.getLogger(name)
        if not any(isinstance(found, _Without) for found in logger.filters):
            logger.addFilter(_Without(parts))
