"""Writes the segments of a recording as subtitles: SubRip, and WebVTT (https://www.w3.org/TR/webvtt1/)."""

from collections.abc import Sequence
from typing import Any


def srt(segments: Sequence[dict[str, Any]]) -> str:
    return "".join(f"{number}\n{_span(each, ',')}\n{each['text'].strip()}\n\n" for number, each in enumerate(segments, 1))


def vtt(segments: Sequence[dict[str, Any]]) -> str:
    return "WEBVTT\n\n" + "".join(f"{_span(each, '.')}\n{each['text'].strip().replace('-->', '->')}\n\n" for each in segments)


def _span(segment: dict[str, Any], point: str) -> str:
    return f"{_time(segment['start'], point)} --> {_time(segment['end'], point)}"


def _time(seconds: float, point: str) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{point}{ms % 1000:03d}"
