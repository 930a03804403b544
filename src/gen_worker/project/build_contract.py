"""What a folder needs to become an image that the platform can run: its files, its Dockerfile, its torch."""

import re
import tomllib
from pathlib import Path

from gen_worker.project.cozy_toml import CozyTomlError, load_cozy_toml
from gen_worker.project.dockerfile import problems_of
from gen_worker.project.origin import environment_problem, foreign_problem, lock_problem, source_lines, source_warning
from gen_worker.project.toml_files import read_toml, tables
from gen_worker.project.torch_build import fit_problems, torch_build
from gen_worker.project.validation import EndpointValidationResult, validate_endpoint

# Folders that would be copied into the image if they exist and .dockerignore does not name them.
LARGE_OR_PRIVATE = (".git", ".venv", "outputs", ".env", "node_modules")


def check_build(root: Path, dockerfile: Path | None = None, *, require_uv_lock: bool = False) -> EndpointValidationResult:
    """Every breach of the build contract that is visible without building. `dockerfile`: one other than the folder's own."""
    result = validate_endpoint(root, require_uv_lock=require_uv_lock)
    errors, warnings = list(result.errors), list(result.warnings)
    path = dockerfile or root / "Dockerfile"
    if dockerfile is not None and (root / "Dockerfile") != dockerfile:
        errors = [error for error in errors if error != "missing Dockerfile"]
    if path.is_file():
        try:
            errors += problems_of(path.read_text())
        except UnicodeDecodeError as exc:
            errors.append(f"Dockerfile is not UTF-8 text (byte {exc.start})")
    errors += _dependency_problems(root / "pyproject.toml")
    found_errors, found_warnings = _origin_problems(root)
    errors += found_errors
    warnings += found_warnings
    warnings += _context_problems(root)
    build = torch_build(root)
    if build is not None:
        try:
            cuda = load_cozy_toml(root / "cozy.toml").cuda
        except CozyTomlError:
            cuda = None
        else:
            wrong, doubtful = fit_problems(build, cuda)
            errors += wrong
            warnings += doubtful
    return EndpointValidationResult(not errors, tuple(errors), tuple(warnings))


def project_version(root: Path) -> str:
    """`[project].version` in pyproject.toml; `""` when there is none."""
    try:
        version = tomllib.loads((root / "pyproject.toml").read_text()).get("project", {}).get("version", "")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return ""
    return version if isinstance(version, str) else ""


def _dependency_problems(path: Path) -> list[str]:
    try:
        listed = tomllib.loads(path.read_text()).get("project", {}).get("dependencies", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return []  # already reported
    names = {re.split(r"[\s\[<>=!~;@]", item, maxsplit=1)[0].replace("_", "-").lower() for item in listed if isinstance(item, str)}
    if "gen-worker" in names:
        return []
    fix = 'add "gen-worker>=0.2.0,<0.3.0" to them'
    more = f", and {source_lines(path.parent)}" if source_warning(path.parent) else ""
    return [f"gen-worker is not among [project].dependencies of pyproject.toml, so the image would lack it; {fix}{more}"]


def _origin_problems(root: Path) -> tuple[list[str], list[str]]:
    """Errors and warnings about a gen-worker that is another project's: here, in the project's environment, in its lock
    file, or in the next one.
    """
    found = [foreign_problem(), environment_problem(root), lock_problem(root, tables(read_toml(root / "uv.lock"), "package"))]
    errors = [problem for problem in found if problem]
    warning = None if errors else source_warning(root)
    return errors, [warning] if warning else []


def _context_problems(root: Path) -> list[str]:
    try:
        ignored = (root / ".dockerignore").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        ignored = []
    patterns = {line.strip().strip("/").removeprefix("**/").rstrip("*") for line in ignored}
    loose = [name for name in LARGE_OR_PRIVATE if (root / name).exists() and name not in patterns]
    if not loose:
        return []
    return [f".dockerignore does not name {', '.join(loose)}, so that COPY . . puts that into the image, too"]
