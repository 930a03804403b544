"""The sections of `cozyctl --help`."""

from gen_worker.cli.sections import OTHERS, SECTIONS, in_sections


def test_names_stand_in_their_section_and_unknown_ones_at_the_end() -> None:
    assert in_sections(["zebra", "dev", "up", "init", "ant"]) == {
        "Write functions": ["init", "dev"],
        "Run the platform": ["up"],
        OTHERS: ["ant", "zebra"],
    }


def test_each_name_is_in_one_section() -> None:
    names = [name for section in SECTIONS.values() for name in section]
    assert len(names) == len(set(names))
