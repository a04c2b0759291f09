"""Imports between single files: folders import one way, files in no circle, `TYPE_CHECKING` or not."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pix2pix_hub"
LEVELS = [  # a file or folder imports from levels above its own, and from itself
    {"util"},
    {"config", "devices", "synthetic"},
    {"image"},
    {"data"},
    {"export"},
    {"models", "losses", "metrics"},
    {"training", "inference", "evaluation", "convert", "hub"},
    {"ui"},
    {"web"},
    {"cli"},
    {"__init__"},  # the package's own names, imported on first use
]


def module_name(path: Path, root: Path) -> str:
    """ "pix2pix_hub.data.pairs"; of a package, "pix2pix_hub.data.__init__"."""
    return ".".join(path.relative_to(root).with_suffix("").parts)


def imports_of_files(package: Path) -> dict[str, set[str]]:
    """Each file's module → the modules of the package that it imports, wherever in the file."""
    files = {module_name(path, package.parent): path for path in package.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} imports relatively, which this test cannot read"
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
        candidates = [(name, f"{name}.__init__", _parent(name), f"{_parent(name)}.__init__") for name in names]
        found[module] = {next(name for name in some if name in files) for some in candidates if files.keys() & {*some}}
    return found


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def upward_imports(imports: dict[str, set[str]], levels: list[set[str]]) -> list[str]:
    """Lines "file imports file" for each import that does not point up the list of levels."""
    level_of = {part: number for number, parts in enumerate(levels) for part in parts}
    wrong = []
    for module, imported in imports.items():
        for other in imported:
            here, there = (name.split(".")[1] for name in (module, other))
            if here != there and level_of[there] >= level_of[here]:
                wrong.append(f"{module} imports {other}")
    return sorted(wrong)


def circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """The files of each circle, cut open one after the other until none is left."""
    left = {module: set(others) for module, others in imports.items()}
    found: list[set[str]] = []
    while True:
        try:
            graphlib.TopologicalSorter(left).prepare()
        except graphlib.CycleError as error:
            circle = error.args[1]
            found.append(set(circle))
            left[circle[1]].discard(circle[0])
        else:
            return found


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    found = imports_of_files(PACKAGE)
    assert len(found) > 50 and sum(map(len, found.values())) > 200, "this test reads next to nothing"
    return found


def test_folders_import_one_way(imports: dict[str, set[str]]) -> None:
    parts = {module.split(".")[1] for module in imports}
    assert parts <= set().union(*LEVELS), "a part of the package has no level"
    assert upward_imports(imports, LEVELS) == []


def test_no_circle_of_files(imports: dict[str, set[str]]) -> None:
    assert circles(imports) == []


def test_circles_and_upward_imports_are_found(tmp_path: Path) -> None:
    """Also under `TYPE_CHECKING`, inside functions, and through a package's `__init__`."""
    package = tmp_path / "house"
    for name, text in {
        "__init__": "",
        "low": "import typing\nif typing.TYPE_CHECKING:\n    from house.high.a import A",
        "high/__init__": "from house.high.a import A",
        "high/a": "def f():\n    import house.low",
        "high/b": "from house.high import A, c",
        "high/c": "from house import high",
    }.items():
        (path := package / f"{name}.py").parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    imports = imports_of_files(package)
    assert imports["house.high.b"] == {"house.high.__init__", "house.high.c"}
    assert imports["house.high.c"] == {"house.high.__init__"}
    assert upward_imports(imports, [{"low"}, {"high"}]) == ["house.low imports house.high.a"]
    assert circles(imports) == [{"house.low", "house.high.a"}]


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
