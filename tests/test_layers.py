"""The package's levels: imports point up the list only, and parts of one level do not import each other."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "pix2pix_hub"
LEVELS = [
    {"errors", "files", "wording", "images", "config", "devices", "versions"},
    {"data"},
    {"export"},
    {"models", "losses", "metrics"},
    {"training", "inference", "evaluation", "convert", "hub"},
    {"launcher"},
    {"commands"},
    {"cli", "ui"},
]
FREE_WITHIN_LEVEL = {"errors", "files", "wording"}  # level 0's own ground floor
HALVES = {"config_checks": "config"}  # parts in two files


def part_of(module: str) -> str:
    name = module.split(".")[1]
    return HALVES.get(name, name)


def level_of(part: str) -> int:
    return next(number for number, parts in enumerate(LEVELS) if part in parts)


def imported_parts(path: Path) -> set[str]:
    """Parts of the package that a file imports, wherever in the file."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively, which this test cannot read"
            modules |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module else set()
    return {part_of(module) for module in modules if module.startswith("pix2pix_hub.")}


def test_imports_point_up_the_list() -> None:
    checked = 0
    for path in PACKAGE.rglob("*.py"):
        part = part_of(f"pix2pix_hub.{path.relative_to(PACKAGE).parts[0].removesuffix('.py')}")
        if part == "__init__":
            continue  # the package's own names, imported on first use
        for imported in imported_parts(path) - {part}:
            checked += 1
            higher = level_of(imported) < level_of(part)
            assert higher or imported in FREE_WITHIN_LEVEL, f"{path.name} ({part}) imports {imported}"
    assert checked > 20


def test_only_the_base_module_touches_the_hub_mixin() -> None:
    users = [path.name for path in PACKAGE.rglob("*.py") if "HubMixin" in path.read_text()]
    assert users == ["base.py"]


def test_training_never_names_the_hub() -> None:
    files = list((PACKAGE / "training").glob("*.py"))
    assert files
    assert not [
        path.name
        for path in files
        if "huggingface_hub." in path.read_text() or "import huggingface" in path.read_text()
    ]
