"""cozy.toml: what is read, and the message for every mistake."""

from pathlib import Path

import pytest

from gen_worker.project.constraints import constraint_satisfied
from gen_worker.project.cozy_toml import CozyTomlError, load_cozy_toml
from gen_worker.refs import ModelSpec

GOOD = 'schema_version = 1\nname = "My Worker"\nmain = "my_pkg.main"\ngen_worker = ">=0.2.0,<0.3.0"\n'


def load(folder: Path, text: str):
    path = folder / "cozy.toml"
    path.write_text(text)
    return load_cozy_toml(path)


def test_everything_that_it_may_hold(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        GOOD
        + """
[models]
sd15 = "hf:stable-diffusion-v1-5/stable-diffusion-v1-5"
flux = { ref = "hf:black-forest-labs/FLUX.2-klein-4B", dtypes = ["fp8"] }
[functions.fixed_pick]
max_concurrency = 2
batch = { max_size = 4, max_wait_ms = 5 }
[functions.fixed_pick.models]
tiny = "hf:demo/tiny"
[resources]
vram_gb = 8
[host.requirements]
cuda = ">=12.4"
[scaling]
min = 1
max = 3
idle_s = 0.5
""",
    )
    assert found.endpoint_name == "my-worker"
    assert found.models["sd15"] == ModelSpec("hf:stable-diffusion-v1-5/stable-diffusion-v1-5", ("fp16", "bf16"))
    assert found.models["flux"].dtypes == ("fp8",)
    assert set(found.models_of("fixed-pick")) == {"tiny"}
    assert set(found.models_of("other")) == {"sd15", "flux"}
    assert found.cuda == ">=12.4"
    assert found.resources == {"vram_gb": 8}
    assert found.scaling == {"min": 1, "max": 3, "idle_s": 0.5}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (GOOD.replace("= 1", "= 2"), 1, "schema_version must be 1, not 2"),
        (GOOD.replace('name = "My Worker"\n', ""), None, "missing name"),
        (GOOD.replace('"my_pkg.main"', '""'), 3, "missing main"),
        (GOOD.replace('"my_pkg.main"', '"my pkg"'), 3, "is not a module name"),
        (GOOD.replace(">=0.2.0,<0.3.0", ">=0.2.0,=>0.3"), 4, "invalid gen_worker constraint clause '=>0.3'"),
        (GOOD.replace(">=0.2.0,<0.3.0", " "), 4, "missing gen_worker"),
        (GOOD + '[host.requirements]\ncuda = "new"\n', 6, "invalid cuda constraint clause 'new'"),
        (GOOD + "[modles]\n", 5, "unknown key 'modles' at the top level. Did you mean 'models'?"),
        (GOOD + '[models]\na = "hf:o/r"\nb = 7\n', 7, "model 'b' must be a string or a table, not a number"),
        (GOOD + '[models]\na = { rev = "x" }\n', 6, "unknown key 'rev' in [models.a]. Did you mean 'ref'?"),
        (GOOD + "[models]\na = {}\n", 6, "missing ref"),
        (GOOD + '[models]\na = ""\n', 6, "ref cannot be empty"),
        (GOOD + '[models]\na = "stable-diffusion"\n', 6, "cannot read model ref 'stable-diffusion'"),
        (GOOD + '[models]\na = { ref = "o/r", dtypes = "fp16" }\n', 6, "must be a list of strings"),
        (GOOD + '[models]\na = { ref = "o/r", dtypes = [] }\n', 6, "cannot be empty"),
        (GOOD + '[models]\na = { ref = "o/r", dtypes = ["fp61"] }\n', 6, "invalid dtypes 'fp61'. Did you mean 'fp16'?"),
        (GOOD + '[models]\n"hf:a/b" = "o/r"\n', 6, "a key is a short name"),
        (GOOD + "[resources]\nvram = 8\n", 6, "unknown key 'vram' in [resources]. Did you mean 'vram_gb'?"),
        (GOOD + '[resources]\nvram_gb = "8"\n', 6, "must be a number"),
        (GOOD + "[functions.a_b]\n[functions.a-b]\n", 6, "both mean the function 'a-b'"),
        (GOOD + "[functions.f]\ntimeout = 3\n", 6, "Did you mean 'timeout_s'?"),
        (GOOD + "[scaling]\nmin = -1\n", 6, "scaling.min = -1 must be a whole number from 0 to 10000"),
        (GOOD + "[scaling]\nmax = -1\n", 6, "scaling.max = -1 must be a whole number from 0"),
        (GOOD + "[scaling]\nmax = true\n", 6, "scaling.max = True must be a whole number"),
        (GOOD + "[scaling]\nmin = 1\nidle_s = nan\n", 7, "scaling.idle_s = nan must be a number of seconds"),
        (GOOD + "[scaling]\nmin = 3\nmax = 2\n", 6, "scaling.min = 3 is above scaling.max = 2"),
        (GOOD + "[scaling]\nmaxx = 3\n", 6, "unknown key 'maxx' in [scaling]. Did you mean 'max'?"),
        (GOOD + "env = 3\n", 5, "[env] must be a table, not a number"),
        (GOOD + "models = [\n", 6, "not valid TOML"),
        (GOOD + "x = " + "[" * 5000, 5, "not valid TOML"),
    ],
)
def test_mistakes_name_key_line_and_nearest_name(tmp_path: Path, text: str, line: int | None, message: str) -> None:
    with pytest.raises(CozyTomlError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)
    if line is not None and caught.value.line is not None:
        assert caught.value.line == line
        assert f"cozy.toml:{line}: " in str(caught.value)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"name = '\x80'"])
def test_text_that_is_not_utf8(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "cozy.toml").write_bytes(data)
    with pytest.raises(CozyTomlError, match="not UTF-8"):
        load_cozy_toml(tmp_path / "cozy.toml")


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CozyTomlError, match="cozyctl init"):
        load_cozy_toml(tmp_path / "cozy.toml")


@pytest.mark.parametrize(
    ("spec", "version", "holds"),
    [
        (">=0.2.0,<0.3.0", "0.2.7", True),
        (">=0.2.0,<0.3.0", "0.3", False),
        ("~=1.4", "1.9", True),
        ("~=1.4", "2.0", False),
        ("~=1.4.5", "1.4.9", True),
        ("~=1.4.5", "1.5.0", False),
        ("1.2", "1.2.0", True),
        ("==1.2", "1.2.1", False),
        (">1", "1.0.1rc1", True),
        ("<=2", "2.0.0.1", False),
        ("", "anything", True),
    ],
)
def test_constraints(spec: str, version: str, holds: bool) -> None:
    assert constraint_satisfied(spec, version) is holds


@pytest.mark.parametrize("key", ["timeout_s", "start_timeout_s", "max_concurrency", "max_attempts", "queue_max"])
@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "-1", "0", "1e300", "604801e1", "true", '"5"', "[]", "99999999999999999999"])
def test_settings_of_functions_have_ranges(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(CozyTomlError, match=f"functions.f.{key} = .*.*: from (1|0.001) to (604800|1000000)"):
        load(tmp_path, GOOD + f"[functions.f]\n{key} = {value}\n")


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "cozy.toml"
    path.write_text(
        """schema_version = 2
nmae = "x"
main = "a b"
gen_worker = "newest"
[models]
good = "hf:a/b"
bad = "a"
worse = { ref = "hf:a/b", dtypes = ["fp61"], revision = "x" }
[resources]
vram_gb = -1
ram_gb = true
[functions.go]
timeout_s = 0
max_concurency = 2
models = 5
[scaling]
min = 5
max = 2
"""
    )
    with pytest.raises(CozyTomlError) as caught:
        load_cozy_toml(path)
    each = caught.value.each
    assert str(caught.value) == "\n".join(each)
    found = sorted(int(text.split(":")[1]) for text in each if not text.startswith("cozy.toml: "))
    assert found == [1, 2, 3, 4, 7, 8, 8, 10, 11, 13, 14, 15, 17], "each once"
    assert [text for text in each if text.startswith("cozy.toml: ")] == [
        'cozy.toml: missing name; expected a line such as name = "my-worker"'
    ]
    assert caught.value.line == int(each[0].split(":")[1])

    path.write_text('schema_version = 1\nmain = "a"\nname = "b"\ngen_worker = ">=0"\nmodels = 3\nhost = "x"\n')
    with pytest.raises(CozyTomlError) as caught:
        load_cozy_toml(path)
    assert len(caught.value.each) == 2

    path.write_text("[models]\n" + "".join(f'm{number} = "a"\n' for number in range(1000)))
    with pytest.raises(CozyTomlError) as caught:
        load_cozy_toml(path)
    assert len(caught.value.each) == 50
